"""The SQLite stores and transport, for the containers: each file is named here."""

from clinic.adapters.sqlite.appointments import SqliteAppointments
from clinic.adapters.sqlite.charges import SqliteCharges
from clinic.adapters.sqlite.dead_letters import SqliteDeadLetters
from clinic.adapters.sqlite.file import SqliteFile, scripts
from clinic.adapters.sqlite.transport import SqlitePublisher, SqliteSubscription
from clinic.entrypoints.technologies import factories
from clinic.entrypoints.technologies.factories import FactoryContext, NoSettings, Store, Transport

Context = FactoryContext[NoSettings]


def _appointment_store(context: Context) -> factories.AppointmentStore:
    file = SqliteFile(context.data_dir / "appointment.db", *scripts("appointment"))
    store = SqliteAppointments(file, context.clock, context.lease, context.monotonic)
    return factories.AppointmentStore(file, appointments=store, outbox=store)


def _financial_store(context: Context) -> factories.FinancialStore:
    path = context.data_dir / "financial.db"
    file = SqliteFile(path, *scripts("financial"))
    return factories.FinancialStore(file, SqliteCharges(file), SqliteDeadLetters(file))


def _publisher(context: Context) -> factories.PublisherEnd:
    log = SqliteFile(context.data_dir / "events.db", *scripts("events"))
    return factories.PublisherEnd.of(SqlitePublisher(log, context.clock))


def _subscription(context: Context) -> factories.SubscriptionEnd:
    offset = SqliteFile(context.data_dir / f"events.{context.group}.db", *scripts("group"))
    log = context.data_dir / "events.db"
    subscription = SqliteSubscription(log, offset, context.clock, context.sleep, context.monotonic)
    return factories.SubscriptionEnd.of(subscription, subscription.lag)


def _channel(_: Context) -> factories.Channel:
    return factories.Channel(
        address="events.db",
        description="A SQLite file in the folder of the clinic's data (`CLINIC_TRANSPORT=sqlite`). How it "
        "keeps messages is no part of this contract: other programs read them from Kafka, where they look "
        "the same.",
    )


STORE = Store(
    settings=NoSettings, appointment=_appointment_store, financial=_financial_store, in_data_dir=True
)
TRANSPORT = Transport(
    settings=NoSettings,
    publisher=_publisher,
    subscription=_subscription,
    channel=_channel,
    in_data_dir=True,
    one_member=True,
)
