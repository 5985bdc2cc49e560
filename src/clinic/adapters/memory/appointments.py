"""Appointments and their outbox in memory."""

from collections.abc import Sequence
from datetime import datetime
from time import monotonic
from uuid import UUID

from msgspec.structs import replace

from clinic.adapters.leases import Leases
from clinic.domain.appointment import ports as appointment
from clinic.domain.appointment.model import Appointment
from clinic.domain.errors import Conflict, NotFound
from clinic.domain.messaging.messages import ClaimedMessage, Message, PublicationStatus, PublishResult
from clinic.domain.messaging.ports import Clock, Monotonic, Outbox, Waiting


class MemoryAppointments(appointment.Appointments, Outbox):
    """What it holds dies with its process."""

    def __init__(self, clock: Clock, lease: float, monotonic: Monotonic = monotonic) -> None:
        self._clock = clock
        self._stored: dict[UUID, Appointment] = {}
        self._once: dict[bytes, Appointment] = {}
        self._outbox: dict[str, tuple[datetime, Message]] = {}
        self._published: dict[str, PublicationStatus] = {}
        self._leases = Leases(lease, monotonic)

    async def add(self, appointment: Appointment, *, once: bytes = b"") -> Appointment:
        if once in self._once:
            return self._once[once]
        if appointment.id in self._stored:
            raise Conflict(f"appointment {appointment.id} is known already")
        self._stored[appointment.id] = appointment
        if once:
            self._once[once] = appointment
        return appointment

    async def get(self, appointment_id: UUID) -> Appointment:
        if appointment_id not in self._stored:
            raise NotFound(f"there is no appointment {appointment_id}")
        return self._stored[appointment_id]

    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        stored = self._stored.get(appointment.id)
        if stored is None or stored.version != appointment.version:
            raise Conflict(f"appointment {appointment.id} was saved by somebody else meanwhile")
        saved = self._stored[appointment.id] = replace(appointment, version=appointment.version + 1)
        for event in events:
            self._outbox.setdefault(event.id, (self._clock(), event))
        self._leases.wake()
        return saved

    async def page(
        self, matching: appointment.AppointmentFilter, limit: int, after: UUID | None = None
    ) -> Sequence[Appointment]:
        found = [
            appointment
            for appointment in self._stored.values()
            if matching.physician_id in (None, appointment.physician_id)
            and matching.patient_id in (None, appointment.patient_id)
            and matching.finished in (None, appointment.end is not None)
            and (matching.started_before is None or appointment.start < matching.started_before)
            and (after is None or appointment.id < after)
        ]
        return sorted(found, key=lambda appointment: appointment.id, reverse=True)[:limit]

    async def check(self) -> None:
        return

    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        return await self._leases.claim(self._unpublished, limit)

    async def confirm(self, published: Sequence[PublishResult]) -> None:
        for result in published:
            if result.message.id in self._outbox:
                saved_at, _ = self._outbox.pop(result.message.id)
                self._published[result.message.id] = PublicationStatus(saved_at, result.at, result.position)
        self._leases.release(result.message.id for result in published)

    async def waiting(
        self, limit: int, before: datetime | None = None, after: Waiting | None = None
    ) -> Sequence[Waiting]:
        places = sorted((saved_at, event.subject) for saved_at, event in self._outbox.values())
        behind = [place for place in places if after is None or place > after]
        return [place for place in behind if before is None or place[0] < before][:limit]

    async def count(self, limit: int) -> int:
        return min(len(self._outbox), limit)

    async def status(self, event: Message) -> PublicationStatus | None:
        if event.id in self._outbox:
            return PublicationStatus(self._outbox[event.id][0])
        return self._published.get(event.id)

    async def _unpublished(self, limit: int) -> Sequence[tuple[datetime, Message]]:
        return list(self._outbox.values())[:limit]
