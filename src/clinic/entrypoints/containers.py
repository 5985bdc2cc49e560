"""One container a context: which class fills which port. Selectors choose store and transport by setting."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import uuid_utils.compat
from dependency_injector.containers import DeclarativeContainer
from dependency_injector.providers import Callable, Dependency, List, Object, Selector, Singleton

from clinic.adapters.memory_store import MemoryAppointments, MemoryCharges, MemoryDeadLetters
from clinic.adapters.memory_transport import MemoryLog, MemoryPublisher, MemorySubscription
from clinic.adapters.sqlite_file import SqliteFile
from clinic.adapters.sqlite_store import APPOINTMENTS, CHARGES, SqliteAppointments, SqliteCharges, SqliteDeadLetters
from clinic.adapters.sqlite_transport import LOG, PLACE, SqlitePublisher, SqliteSubscription
from clinic.domain import events
from clinic.domain.appointment.use_cases import FindAppointment, FinishAppointment, ListAppointments, StartAppointment
from clinic.domain.delivery import Consumer, Relay
from clinic.domain.financial.pricing import POLICIES
from clinic.domain.financial.use_cases import ChargeAppointments, FindCharge, ListCharges
from clinic.entrypoints.notices import WatchedNotices
from clinic.entrypoints.settings import Settings

GROUP = "financial"


def now() -> datetime:
    """The time: aware, UTC, in whole milliseconds, as everything keeps it."""
    exact = datetime.now(UTC)
    return exact.replace(microsecond=exact.microsecond // 1000 * 1000)


def _in(settings: Any, name: str) -> Any:
    return Callable(lambda folder: folder / name, settings.provided.data_dir)


class AppointmentContainer(DeclarativeContainer):
    """The appointment context."""

    settings = Dependency(instance_of=Settings)
    memory_log = Dependency(instance_of=MemoryLog, default=Singleton(MemoryLog))
    clock = Object(now)
    notices = Singleton(WatchedNotices, "appointment")

    file = Singleton(SqliteFile, _in(settings, "appointment.db"), APPOINTMENTS)
    appointments = Selector(
        settings.provided.store,
        sqlite=Singleton(SqliteAppointments, file, clock, settings.provided.lease),
        memory=Singleton(MemoryAppointments, clock, settings.provided.lease),
    )
    log = Singleton(SqliteFile, _in(settings, "events.db"), LOG)
    publisher = Selector(
        settings.provided.transport,
        sqlite=Singleton(SqlitePublisher, log, clock),
        memory=Singleton(MemoryPublisher, memory_log, clock),
    )
    relay = Singleton(Relay, appointments, publisher, Object(asyncio.sleep), notices)
    opened = List(
        Selector(settings.provided.store, sqlite=file, memory=Object(None)),
        Selector(settings.provided.transport, sqlite=publisher, memory=Object(None)),
    )

    start_appointment = Singleton(StartAppointment, appointments, clock, Object(uuid_utils.compat.uuid7), settings.provided.hourly_price)
    finish_appointment = Singleton(FinishAppointment, appointments, clock, notices)
    find_appointment = Singleton(FindAppointment, appointments)
    list_appointments = Singleton(ListAppointments, appointments)


class FinancialContainer(DeclarativeContainer):
    """The financial context."""

    settings = Dependency(instance_of=Settings)
    memory_log = Dependency(instance_of=MemoryLog, default=Singleton(MemoryLog))
    clock = Object(now)
    pause = Object(asyncio.sleep)
    notices = Singleton(WatchedNotices, "financial")

    file = Singleton(SqliteFile, _in(settings, "financial.db"), CHARGES)
    charges = Selector(
        settings.provided.store,
        sqlite=Singleton(SqliteCharges, file),
        memory=Singleton(MemoryCharges),
    )
    dead_letters = Selector(
        settings.provided.store,
        sqlite=Singleton(SqliteDeadLetters, file),
        memory=Singleton(MemoryDeadLetters),
    )
    place = Singleton(SqliteFile, _in(settings, f"events.{GROUP}.db"), PLACE)
    subscription = Selector(
        settings.provided.transport,
        sqlite=Singleton(SqliteSubscription, _in(settings, "events.db"), place, clock, pause),
        memory=Singleton(MemorySubscription, memory_log, GROUP, clock),
    )
    charge_appointments = Singleton(ChargeAppointments, charges, Callable(POLICIES.__getitem__, settings.provided.pricing), clock, notices)
    consumer = Singleton(Consumer, subscription, Object(events.read), charge_appointments, dead_letters, clock, pause, notices)
    opened = List(
        Selector(settings.provided.store, sqlite=file, memory=Object(None)),
        Selector(settings.provided.transport, sqlite=subscription, memory=Object(None)),
    )

    find_charge = Singleton(FindCharge, charges)
    list_charges = Singleton(ListCharges, charges)
