"""What the appointment context needs of the world."""

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from clinic.domain.appointment.model import Appointment
from clinic.domain.messaging.messages import Message


class AppointmentFilter(Struct, frozen=True):
    """Which appointments a list shows: those that meet every condition that is set."""

    physician_id: UUID | None = None
    patient_id: UUID | None = None
    finished: bool | None = None
    started_before: datetime | None = None


class Appointments(Protocol):
    """Appointments, each stored together with its unpublished events.

    Every call raises `Unavailable` when the store does not answer: the outcome of `add` and `save` is then
    unknown. It raises `Unreadable` for what was damaged, and for nothing beside it.
    """

    @abstractmethod
    async def add(self, appointment: Appointment, *, once: bytes = b"") -> Appointment:
        """Keep a new appointment, and return it. Raises `Conflict` if its id is known.

        Of all that are added under the same key `once`, at any time, only the first is kept, and each call
        returns it as it was added. A repetition completes what a crash left undone; ids have to be new.
        """

    @abstractmethod
    async def get(self, appointment_id: UUID) -> Appointment:
        """The appointment as it was last saved. Raises `NotFound`."""

    @abstractmethod
    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        """Keep its new state and put its events into the outbox, in one atomic step; return it as kept.

        The events are about it: each has its id as subject. Raises `Conflict`, with nothing kept, if it was
        saved since this one was read, or was never added.
        """

    @abstractmethod
    async def page(
        self, matching: AppointmentFilter, limit: int, after: UUID | None = None
    ) -> Sequence[Appointment]:
        """Up to `limit` matching ones, the newest id first, from behind the id `after`."""

    @abstractmethod
    async def check(self) -> None:
        """Return when the store answers."""
