"""The MongoDB stores, for the containers: a database a context."""

from clinic.adapters.mongo.appointments import APPOINTMENTS, KEYS, MongoAppointments
from clinic.adapters.mongo.charges import CHARGES, MongoCharges
from clinic.adapters.mongo.database import CollectionSchema, MongoDatabase
from clinic.adapters.mongo.dead_letters import DEAD_LETTERS, HISTORY, MongoDeadLetters
from clinic.adapters.mongo.outbox import MongoOutbox
from clinic.entrypoints.technologies.factories import AppointmentStore, FactoryContext, FinancialStore, Store


def _appointment_store(context: FactoryContext) -> AppointmentStore:
    database = _database(context, "appointment", APPOINTMENTS, KEYS)
    outbox = MongoOutbox(database, context.lease, context.monotonic)
    return AppointmentStore(database, MongoAppointments(database, context.clock, outbox), outbox)


def _financial_store(context: FactoryContext) -> FinancialStore:
    database = _database(context, "financial", CHARGES, DEAD_LETTERS, HISTORY)
    return FinancialStore(database, MongoCharges(database), MongoDeadLetters(database))


def _database(context: FactoryContext, name: str, *schemas: CollectionSchema) -> MongoDatabase:
    options = context.options
    return MongoDatabase(options["url"], f"{options['database']}_{name}", options["timeout"], *schemas)


STORE = Store(_appointment_store, _financial_store)
