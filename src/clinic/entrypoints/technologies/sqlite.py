"""The SQLite stores and transport, for the containers: each file is named here."""

from clinic.adapters.sqlite.appointments import SqliteAppointments
from clinic.adapters.sqlite.charges import SqliteCharges
from clinic.adapters.sqlite.dead_letters import SqliteDeadLetters
from clinic.adapters.sqlite.file import SqliteFile, scripts
from clinic.adapters.sqlite.transport import SqlitePublisher, SqliteSubscription
from clinic.entrypoints.technologies import factories
from clinic.entrypoints.technologies.factories import FactoryContext, Store, Transport


def _appointment_store(context: FactoryContext) -> factories.AppointmentStore:
    file = SqliteFile(context.data_dir / "appointment.db", *scripts("appointment"))
    store = SqliteAppointments(file, context.clock, context.lease, context.monotonic)
    return factories.AppointmentStore(file, appointments=store, outbox=store)


def _financial_store(context: FactoryContext) -> factories.FinancialStore:
    path = context.data_dir / "financial.db"
    file = SqliteFile(path, *scripts("financial"))
    return factories.FinancialStore(file, SqliteCharges(file), SqliteDeadLetters(file))


def _publisher(context: FactoryContext) -> factories.PublisherEnd:
    publisher = SqlitePublisher(SqliteFile(context.data_dir / "events.db", *scripts("events")), context.clock)
    return factories.PublisherEnd(publisher, publisher)


def _subscription(context: FactoryContext) -> factories.SubscriptionEnd:
    offset = SqliteFile(context.data_dir / f"events.{context.group}.db", *scripts("group"))
    log = context.data_dir / "events.db"
    subscription = SqliteSubscription(log, offset, context.clock, context.sleep, context.monotonic)
    return factories.SubscriptionEnd(subscription, subscription, subscription.lag)


def _channel(_: FactoryContext) -> factories.Channel:
    return factories.Channel(
        address="events.db",
        description="A SQLite file in the folder of the clinic's data (`CLINIC_TRANSPORT=sqlite`). How it "
        "keeps messages is no part of this contract: other programs read them from Kafka, where they look "
        "the same.",
    )


STORE = Store(_appointment_store, _financial_store)
TRANSPORT = Transport(_publisher, _subscription, _channel)
