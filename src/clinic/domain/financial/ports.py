"""What the financial context needs of the world."""

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from clinic.domain.financial.model import Charge, ChargeCursor


class ChargeFilter(Struct, frozen=True):
    """Which charges a list shows: those that meet every condition that is set.

    `charged_to` itself is not included.
    """

    physician_id: UUID | None = None
    patient_id: UUID | None = None
    charged_from: datetime | None = None
    charged_to: datetime | None = None


class AddResult(Struct, frozen=True):
    """What became of charges that were added: the new ones, and for the others the existing charge."""

    new: list[Charge]
    existing: list[Charge]


class Charges(Protocol):
    """The clinic's charges. Every call raises `Unavailable`, and `Unreadable` for a damaged charge."""

    @abstractmethod
    async def add(self, charges: Sequence[Charge]) -> AddResult:
        """Keep each charge, for ever, unless its appointment already has one; all are kept on return.

        `new` is a hint: when a call with an unknown outcome is repeated, it may name fewer than were new.
        """

    @abstractmethod
    async def get(self, appointment_id: UUID) -> Charge:
        """The charge of this appointment. Raises `NotFound`."""

    @abstractmethod
    async def wait_for(self, appointment_id: UUID, timeout: float) -> Charge:
        """The charge of this appointment, as soon as there is one.

        Raises `NotFound` after `timeout` seconds. Also finds what another process charged. Raises
        `Unavailable` if too many wait already.
        """

    @abstractmethod
    async def page(
        self, matching: ChargeFilter, limit: int, after: ChargeCursor | None = None
    ) -> Sequence[Charge]:
        """Up to `limit` matching ones, the newest first, from behind the cursor `after`."""

    @abstractmethod
    async def by_appointment(self, limit: int, after: UUID | None = None) -> Sequence[Charge]:
        """Up to `limit` of all, the newest appointment's id first, from behind the id `after`."""

    @abstractmethod
    async def count(self) -> int:
        """About how many there are."""

    @abstractmethod
    async def check(self) -> None:
        """Return when the store answers."""
