"""Whether each finished appointment has the right charge, and each charge a finished appointment."""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, Literal, Protocol, TypeVar
from uuid import UUID

from msgspec import Struct

from clinic.domain.events import AppointmentFinished
from clinic.domain.financial.model import Charge
from clinic.domain.financial.ports import Charges
from clinic.domain.financial.pricing import Pricing
from clinic.domain.financial.related_letters import related_letters
from clinic.domain.financial.use_cases import existing_charge
from clinic.domain.messaging.dead_letters import DeadLetters
from clinic.domain.messaging.messages import PublicationStatus
from clinic.domain.messaging.ports import Clock
from clinic.domain.reconciliation.findings import Finding, missing, orphaned, wrong

Listed = TypeVar("Listed", AppointmentFinished, Charge)

PAGE_SIZE: Final = 1000
CONCURRENCY: Final = 100
"""Appointments that are read again at the same time."""
SECOND: Final = timedelta(seconds=1)


class FinishedAppointments(Protocol):
    """Finished appointments, as the appointment context shows them. Every call raises `Unavailable`."""

    @abstractmethod
    async def page(self, limit: int, after: UUID | None = None) -> Sequence[AppointmentFinished]:
        """Up to `limit` of their events, the newest appointment's id first, from behind the id `after`."""

    @abstractmethod
    async def find(self, appointment_id: UUID) -> tuple[AppointmentFinished, PublicationStatus | None] | None:
        """The event of one and its publication; None if it is unknown or not finished."""

    @abstractmethod
    async def republish(self, appointment_id: UUID) -> None:
        """Publish the event of one again. Raises `Refused` if it is unknown or not finished."""


class AuditChunk(Struct, frozen=True):
    """A part of an audit: how many appointments it has, how many are in flight, and its findings."""

    appointments: int
    in_flight: int
    findings: Sequence[Finding]


class AuditCharges:
    """Compare finished appointments with charges, while both services run; nothing is changed.

    What does not agree is read again on both sides before it is reported. If it was finished, published or
    charged within `grace` of now, it is in flight. A charge is checked against the policy that it names, a
    missing charge is estimated by today's policy. Raises `Unavailable`.
    """

    def __init__(self, charges: Charges, dead_letters: DeadLetters, pricing: Pricing, clock: Clock) -> None:
        self._charges, self._dead_letters = charges, dead_letters
        self._pricing, self._clock = pricing, clock

    async def __call__(
        self, finished: FinishedAppointments, grace: timedelta, since: UUID | None = None
    ) -> AsyncIterator[AuditChunk]:
        """Compare all, or only the ids from `since` on."""
        count, suspects = 0, list[UUID]()
        async for appointment_id, event, charge in _side_by_side(finished, self._charges):
            if since and appointment_id < since:
                break
            count += 1
            if event is None or charge is None or wrong(event, charge):
                suspects.append(appointment_id)
            if count == PAGE_SIZE:
                yield await self.read_again(suspects, finished, grace, count)
                count, suspects = 0, []
        yield await self.read_again(suspects, finished, grace, count)

    async def size(self) -> int:
        """About how many appointments there are to compare. Raises `Unavailable`."""
        return await self._charges.count()

    async def read_again(
        self, suspects: Sequence[UUID], finished: FinishedAppointments, grace: timedelta, count: int = 0
    ) -> AuditChunk:
        """What is still found about these, which an audit of `count` appointments suspected."""
        found: list[Finding | Literal["in flight"] | None] = []
        for first in range(0, len(suspects), CONCURRENCY):
            batch = suspects[first : first + CONCURRENCY]
            found += await asyncio.gather(*(self._compare(suspect, finished, grace) for suspect in batch))
        findings = [finding for finding in found if isinstance(finding, Finding)]
        return AuditChunk(count, found.count("in flight"), findings)

    async def _compare(
        self, appointment_id: UUID, finished: FinishedAppointments, grace: timedelta
    ) -> Finding | Literal["in flight"] | None:
        event, status = await finished.find(appointment_id) or (None, None)
        letters = await related_letters(appointment_id, self._dead_letters)
        # Read last: a letter that was replayed meanwhile has its charge by now.
        charge = await existing_charge(appointment_id, self._charges)
        finding: Finding | None = None
        if event and charge:
            finding = wrong(event, charge)
        elif event:
            finding = missing(event, status, letters, self._pricing)
        elif charge:
            finding = orphaned(charge)
        return "in flight" if finding and self._is_younger(grace, event, status, charge) else finding

    def _is_younger(
        self,
        grace: timedelta,
        event: AppointmentFinished | None,
        status: PublicationStatus | None,
        charge: Charge | None,
    ) -> bool:
        times = (
            event and event.end + SECOND,  # an end is cut to the second
            status and (status.published_at or status.saved_at),
            charge and charge.charged_at,
        )
        # What is further ahead was dated by a clock that was wrong.
        return any(abs(self._clock() - moment) < grace for moment in times if moment)


async def _side_by_side(
    finished: FinishedAppointments, charges: Charges
) -> AsyncIterator[tuple[UUID, AppointmentFinished | None, Charge | None]]:
    """Events and charges by id, the newest first, those with the same id together. Holds a page of each."""
    some, others = _all(finished.page), _all(charges.by_appointment)
    event, charge = await anext(some, None), await anext(others, None)
    while event or charge:
        newest = max(side.appointment_id for side in (event, charge) if side)
        one = event if event and event.appointment_id == newest else None
        other = charge if charge and charge.appointment_id == newest else None
        yield newest, one, other
        event = await anext(some, None) if one else event
        charge = await anext(others, None) if other else charge


async def _all(page: Callable[[int, UUID | None], Awaitable[Sequence[Listed]]]) -> AsyncIterator[Listed]:
    after: UUID | None = None
    while found := await page(PAGE_SIZE, after):
        for item in found:
            yield item
        after = found[-1].appointment_id
