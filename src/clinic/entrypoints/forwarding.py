"""Ports that hand every call on, for whatever stands before one and changes a call or two."""

from collections.abc import Sequence
from uuid import UUID

from clinic.domain.appointment.model import Appointment
from clinic.domain.appointment.ports import AppointmentFilter, Appointments
from clinic.domain.messaging.dead_letters import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetters,
    HistoryCursor,
    HistoryEntry,
    LetterGroup,
    RecordedEntry,
)
from clinic.domain.messaging.messages import Message


class ForwardingAppointments(Appointments):
    """Each call is the store's."""

    def __init__(self, appointments: Appointments) -> None:
        self._appointments = appointments

    async def add(self, appointment: Appointment, *, once: bytes = b"") -> Appointment:
        return await self._appointments.add(appointment, once=once)

    async def get(self, appointment_id: UUID) -> Appointment:
        return await self._appointments.get(appointment_id)

    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        return await self._appointments.save(appointment, *events)

    async def page(
        self, matching: AppointmentFilter, limit: int, after: UUID | None = None
    ) -> Sequence[Appointment]:
        return await self._appointments.page(matching, limit, after)

    async def check(self) -> None:
        await self._appointments.check()


class ForwardingDeadLetters(DeadLetters):
    """Each call is the store's."""

    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        await self._letters.add(letters)

    async def get(self, position: str) -> DeadLetter:
        return await self._letters.get(position)

    async def page(self, matching: DeadLetterFilter, limit: int, after: str = "") -> Sequence[DeadLetter]:
        return await self._letters.page(matching, limit, after)

    async def groups(self) -> Sequence[LetterGroup]:
        return await self._letters.groups()

    async def record(self, letter: DeadLetter, entry: HistoryEntry) -> None:
        await self._letters.record(letter, entry)

    async def history(self, limit: int, after: HistoryCursor | None = None) -> Sequence[RecordedEntry]:
        return await self._letters.history(limit, after)
