"""One container a context: which class fills which port. Selectors choose store and transport by setting."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import uuid_utils.compat
from dependency_injector.containers import DeclarativeContainer
from dependency_injector.providers import Callable, Dependency, List, Object, Selector, Singleton

from clinic.adapters import cloudevents
from clinic.adapters.kafka.cluster import KafkaConfig
from clinic.adapters.kafka.publisher import KafkaPublisher
from clinic.adapters.kafka.subscription import KafkaSubscription
from clinic.adapters.memory.store import MemoryAppointments, MemoryCharges, MemoryDeadLetters
from clinic.adapters.memory.transport import MemoryLog, MemoryPublisher, MemorySubscription
from clinic.adapters.mongo.appointments import MongoAppointments
from clinic.adapters.mongo.charges import MongoCharges
from clinic.adapters.mongo.database import MongoDatabase
from clinic.adapters.mongo.dead_letters import MongoDeadLetters
from clinic.adapters.sqlite.appointments import APPOINTMENTS, SqliteAppointments
from clinic.adapters.sqlite.charges import CHARGES, SqliteCharges
from clinic.adapters.sqlite.dead_letters import DEAD_LETTERS, HANDLINGS, READING, SqliteDeadLetters
from clinic.adapters.sqlite.file import SqliteFile
from clinic.adapters.sqlite.transport import LOG, PLACE, SqlitePublisher, SqliteSubscription
from clinic.domain import events
from clinic.domain.appointment.use_cases import (
    FindAppointment,
    FindFinishedEvent,
    FinishAppointment,
    ListAppointments,
    ListFinishedEvents,
    RepublishFinished,
    StartAppointment,
    TraceAppointment,
)
from clinic.domain.financial.dead_letters import (
    DiscardDeadLetters,
    FindDeadLetter,
    GroupDeadLetters,
    ListDeadLetters,
    ReplayDeadLetters,
)
from clinic.domain.financial.pricing import POLICIES
from clinic.domain.financial.tracing import TraceCharge
from clinic.domain.financial.use_cases import ChargeAppointments, FindCharge, ListCharges, PreviewCharges
from clinic.domain.messaging.consumer import Consumer
from clinic.domain.messaging.relay import Relay
from clinic.domain.reconciliation.audit import AuditCharges
from clinic.domain.reconciliation.repair import RepairCharges
from clinic.entrypoints.settings import Settings
from clinic.entrypoints.telemetry import LoggingTelemetry

GROUP = "financial"


def now() -> datetime:
    """The time: aware, UTC, in whole milliseconds, as everything keeps it."""
    exact = datetime.now(UTC)
    return exact.replace(microsecond=exact.microsecond // 1000 * 1000)


def _kafka(settings: Settings) -> KafkaConfig:
    return KafkaConfig(
        servers=settings.kafka_bootstrap_servers,
        topic=settings.kafka_topic,
        group=settings.kafka_group,
        partitions=settings.kafka_partitions,
        replication=settings.kafka_replication,
        protocol=settings.kafka_protocol,
        options=settings.kafka_options,
    )


def _mongo(settings: Settings, context: str) -> MongoDatabase:
    return MongoDatabase(settings.mongo_url, f"{settings.mongo_database}_{context}", settings.mongo_timeout)


def _in(settings: Any, name: str) -> Any:
    return Callable(lambda folder: folder / name, settings.provided.data_dir)


class AppointmentContainer(DeclarativeContainer):
    """The appointment context."""

    settings = Dependency(instance_of=Settings)
    memory_log = Dependency(instance_of=MemoryLog, default=Singleton(MemoryLog))
    clock = Object(now)
    telemetry = Singleton(LoggingTelemetry, "appointment")

    file = Singleton(SqliteFile, _in(settings, "appointment.db"), APPOINTMENTS)
    database = Singleton(_mongo, settings, "appointment")
    storage = Selector(settings.provided.store, sqlite=file, mongo=database, memory=Object(None))
    appointments = Selector(
        settings.provided.store,
        sqlite=Singleton(SqliteAppointments, file, clock, settings.provided.lease),
        mongo=Singleton(MongoAppointments, database, clock, settings.provided.lease),
        memory=Singleton(MemoryAppointments, clock, settings.provided.lease),
    )
    log = Singleton(SqliteFile, _in(settings, "events.db"), LOG)
    publisher = Selector(
        settings.provided.transport,
        sqlite=Singleton(SqlitePublisher, log, clock),
        kafka=Singleton(KafkaPublisher, Singleton(_kafka, settings), settings.provided.lease, telemetry),
        memory=Singleton(MemoryPublisher, memory_log, clock),
    )
    relay = Singleton(Relay, appointments, publisher, Object(asyncio.sleep), telemetry)
    resources = List(
        Selector(settings.provided.store, sqlite=file, mongo=appointments, memory=Object(None)),
        Selector(settings.provided.transport, sqlite=publisher, kafka=publisher, memory=Object(None)),
    )

    start_appointment = Singleton(
        StartAppointment, appointments, clock, Object(uuid_utils.compat.uuid7), settings.provided.hourly_price
    )
    finish_appointment = Singleton(FinishAppointment, appointments, clock, telemetry)
    find_appointment = Singleton(FindAppointment, appointments)
    list_appointments = Singleton(ListAppointments, appointments)
    list_finished_events = Singleton(ListFinishedEvents, appointments)
    find_finished_event = Singleton(FindFinishedEvent, appointments, appointments)
    republish_finished = Singleton(RepublishFinished, appointments, appointments)
    trace_appointment = Singleton(TraceAppointment, appointments, appointments)


class FinancialContainer(DeclarativeContainer):
    """The financial context."""

    settings = Dependency(instance_of=Settings)
    memory_log = Dependency(instance_of=MemoryLog, default=Singleton(MemoryLog))
    clock = Object(now)
    pause = Object(asyncio.sleep)
    telemetry = Singleton(LoggingTelemetry, "financial")

    file = Singleton(
        SqliteFile, _in(settings, "financial.db"), CHARGES + DEAD_LETTERS, HANDLINGS, functions=READING
    )
    database = Singleton(_mongo, settings, "financial")
    storage = Selector(settings.provided.store, sqlite=file, mongo=database, memory=Object(None))
    charges = Selector(
        settings.provided.store,
        sqlite=Singleton(SqliteCharges, file),
        mongo=Singleton(MongoCharges, database),
        memory=Singleton(MemoryCharges),
    )
    dead_letters = Selector(
        settings.provided.store,
        sqlite=Singleton(SqliteDeadLetters, file),
        mongo=Singleton(MongoDeadLetters, database),
        memory=Singleton(MemoryDeadLetters),
    )
    place = Singleton(SqliteFile, _in(settings, f"events.{GROUP}.db"), PLACE)
    subscription = Selector(
        settings.provided.transport,
        sqlite=Singleton(SqliteSubscription, _in(settings, "events.db"), place, clock, pause),
        kafka=Singleton(KafkaSubscription, Singleton(_kafka, settings), clock, telemetry),
        memory=Singleton(MemorySubscription, memory_log, GROUP, clock),
    )
    policy = Callable(POLICIES.__getitem__, settings.provided.pricing)
    charge_appointments = Singleton(ChargeAppointments, charges, policy, clock, telemetry)
    consumer = Singleton(
        Consumer,
        subscription,
        Object(events.from_message),
        charge_appointments,
        dead_letters,
        clock,
        pause,
        telemetry,
    )
    resources = List(
        Selector(settings.provided.store, sqlite=file, mongo=charges, memory=Object(None)),
        Selector(settings.provided.store, sqlite=Object(None), mongo=dead_letters, memory=Object(None)),
        Selector(settings.provided.transport, sqlite=subscription, kafka=subscription, memory=Object(None)),
    )

    find_charge = Singleton(FindCharge, charges)
    list_charges = Singleton(ListCharges, charges)
    list_dead_letters = Singleton(ListDeadLetters, dead_letters)
    group_dead_letters = Singleton(GroupDeadLetters, dead_letters)
    find_dead_letter = Singleton(FindDeadLetter, dead_letters)
    replay_dead_letters = Singleton(
        ReplayDeadLetters,
        dead_letters,
        Object(cloudevents.message),
        Object(events.from_message),
        charge_appointments,
        Singleton(PreviewCharges, charges, policy, clock),
        clock,
        telemetry,
    )
    discard_dead_letters = Singleton(DiscardDeadLetters, dead_letters, clock, telemetry)
    audit_charges = Singleton(AuditCharges, charges, dead_letters, policy, clock)
    repair_charges = Singleton(RepairCharges, charges, dead_letters)
    trace_charge = Singleton(TraceCharge, charges, dead_letters)
