"""The MongoDB adapters as the suites see them: each with the database that it lives in."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from time import monotonic
from uuid import UUID

from clinic.adapters.mongo.appointments import APPOINTMENTS, MongoAppointments
from clinic.adapters.mongo.charges import CHARGES, MongoCharges
from clinic.adapters.mongo.database import MongoDatabase
from clinic.adapters.mongo.dead_letters import DEAD_LETTERS, HISTORY, MongoDeadLetters
from clinic.adapters.mongo.outbox import MongoOutbox
from clinic.domain.appointment.model import Appointment
from clinic.domain.appointment.ports import AppointmentFilter, Appointments
from clinic.domain.messaging.messages import ClaimedMessage, Message, PublicationStatus, PublishResult
from clinic.domain.messaging.ports import Outbox, Waiting
from clinic.testing.builders import now, opened


class MongoStore(Appointments, Outbox):
    """A process's appointments and outbox, as one."""

    def __init__(self, database: MongoDatabase, lease: float) -> None:
        self.outbox = MongoOutbox(database, lease, monotonic)
        self.appointments = MongoAppointments(database, now, self.outbox)

    async def add(self, appointment: Appointment, *, once: bytes = b"") -> Appointment:
        return await self.appointments.add(appointment, once=once)

    async def get(self, appointment_id: UUID) -> Appointment:
        return await self.appointments.get(appointment_id)

    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        return await self.appointments.save(appointment, *events)

    async def page(
        self, matching: AppointmentFilter, limit: int, after: UUID | None = None
    ) -> Sequence[Appointment]:
        return await self.appointments.page(matching, limit, after)

    async def check(self) -> None:
        await self.appointments.check()

    async def count(self, limit: int) -> int:
        return await self.outbox.count(limit)

    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        return await self.outbox.claim(limit)

    async def confirm(self, published: Sequence[PublishResult]) -> None:
        await self.outbox.confirm(published)

    async def oldest(self) -> datetime | None:
        return await self.outbox.oldest()

    async def waiting(
        self, limit: int, before: datetime | None = None, after: Waiting | None = None
    ) -> Sequence[Waiting]:
        return await self.outbox.waiting(limit, before, after)

    async def status(self, event: Message) -> PublicationStatus | None:
        return await self.outbox.status(event)


@asynccontextmanager
async def a_mongo_store(url: str, name: str, lease: float, timeout: float = 5) -> AsyncIterator[MongoStore]:
    """Of a process that serves this database, until the block ends."""
    async with opened(MongoDatabase(url, name, timeout, APPOINTMENTS)) as database:
        yield MongoStore(database, lease)


@asynccontextmanager
async def mongo_charges(url: str, name: str) -> AsyncIterator[MongoCharges]:
    """Of a process that serves this database, until the block ends."""
    async with opened(MongoDatabase(url, name, 5, CHARGES)) as database:
        yield MongoCharges(database)


@asynccontextmanager
async def mongo_dead_letters(url: str, name: str) -> AsyncIterator[MongoDeadLetters]:
    """Of a process that serves this database, until the block ends."""
    async with opened(MongoDatabase(url, name, 5, DEAD_LETTERS, HISTORY)) as database:
        yield MongoDeadLetters(database)
