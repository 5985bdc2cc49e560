"""The SQLite stores and transport, for the containers: each file is named here."""

from clinic.adapters.factories import (
    AppointmentStore,
    FactoryContext,
    FinancialStore,
    PublisherEnd,
    Store,
    SubscriptionEnd,
    Transport,
)
from clinic.adapters.sqlite.appointments import APPOINTMENTS, OPEN, SqliteAppointments
from clinic.adapters.sqlite.charges import SqliteCharges
from clinic.adapters.sqlite.dead_letters import FINANCIAL, SqliteDeadLetters
from clinic.adapters.sqlite.file import SqliteFile
from clinic.adapters.sqlite.transport import LOG, PLACE, SqlitePublisher, SqliteSubscription


def _appointment_store(context: FactoryContext) -> AppointmentStore:
    file = SqliteFile(context.data_dir / "appointment.db", APPOINTMENTS, OPEN)
    store = SqliteAppointments(file, context.clock, context.lease, context.monotonic)
    return AppointmentStore(file, appointments=store, outbox=store)


def _financial_store(context: FactoryContext) -> FinancialStore:
    path = context.data_dir / "financial.db"
    file = SqliteFile(path, *FINANCIAL)
    return FinancialStore(file, SqliteCharges(file), SqliteDeadLetters(file))


def _publisher(context: FactoryContext) -> PublisherEnd:
    publisher = SqlitePublisher(SqliteFile(context.data_dir / "events.db", LOG), context.clock)
    return PublisherEnd(publisher, publisher)


def _subscription(context: FactoryContext) -> SubscriptionEnd:
    offset = SqliteFile(context.data_dir / f"events.{context.group}.db", PLACE)
    log = context.data_dir / "events.db"
    subscription = SqliteSubscription(log, offset, context.clock, context.sleep)
    return SubscriptionEnd(subscription, subscription)


STORE = Store(_appointment_store, _financial_store)
TRANSPORT = Transport(_publisher, _subscription)
