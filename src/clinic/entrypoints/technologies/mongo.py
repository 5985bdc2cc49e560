"""The MongoDB stores, for the containers: a database a context."""

from typing import Annotated

from msgspec import Meta, Struct

from clinic.adapters.mongo.appointments import APPOINTMENTS, KEYS, MongoAppointments
from clinic.adapters.mongo.charges import CHARGES, MongoCharges
from clinic.adapters.mongo.database import CollectionSchema, MongoDatabase
from clinic.adapters.mongo.dead_letters import DEAD_LETTERS, HISTORY, MongoDeadLetters
from clinic.adapters.mongo.outbox import MongoOutbox
from clinic.entrypoints.technologies.factories import (
    AppointmentStore,
    FactoryContext,
    FinancialStore,
    Secret,
    Store,
)


class MongoSettings(Struct, frozen=True, kw_only=True):
    """Read from CLINIC_MONGO_…"""

    url: Annotated[str, Secret] = "mongodb://127.0.0.1:27017"
    database: str = "clinic"
    timeout: Annotated[float, Meta(ge=0.1, le=60)] = 5.0


Context = FactoryContext[MongoSettings]


def _appointment_store(context: Context) -> AppointmentStore:
    database = _database(context, "appointment", APPOINTMENTS, KEYS)
    outbox = MongoOutbox(database, context.lease, context.monotonic)
    return AppointmentStore(database, MongoAppointments(database, context.clock, outbox), outbox)


def _financial_store(context: Context) -> FinancialStore:
    database = _database(context, "financial", CHARGES, DEAD_LETTERS, HISTORY)
    return FinancialStore(database, MongoCharges(database), MongoDeadLetters(database))


def _database(context: Context, name: str, *schemas: CollectionSchema) -> MongoDatabase:
    its = context.settings
    return MongoDatabase(its.url, f"{its.database}_{name}", its.timeout, *schemas)


STORE = Store(settings=MongoSettings, appointment=_appointment_store, financial=_financial_store)
