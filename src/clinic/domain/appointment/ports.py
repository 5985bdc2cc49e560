"""What the appointment context needs of the world."""

from abc import abstractmethod
from collections.abc import Sequence
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


class Appointments(Protocol):
    """The clinic's appointments, each with the news of it that is not yet told.

    Every call raises `Unavailable` when the store does not answer; for `add` and `save` the outcome is then
    unknown.
    """

    @abstractmethod
    async def add(self, appointment: Appointment) -> None:
        """Keep a new appointment. Raises `Conflict` where its id is known."""

    @abstractmethod
    async def get(self, appointment_id: UUID) -> Appointment:
        """The appointment as it was last saved. Raises `NotFound`."""

    @abstractmethod
    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        """Keep its new state and put its facts into the outbox, in one step or not at all; answer it as it is
        now kept.

        The facts are about it: each has its id as subject.
        Raises `Conflict`, with nothing kept, where it was saved since this one was got, or was never added.
        """

    @abstractmethod
    async def page(
        self, matching: AppointmentFilter, limit: int, after: UUID | None = None
    ) -> Sequence[Appointment]:
        """Up to `limit` of the wanted ones, the newest id first, from behind the id `after`."""

    @abstractmethod
    async def check(self) -> None:
        """Return when the store answers."""
