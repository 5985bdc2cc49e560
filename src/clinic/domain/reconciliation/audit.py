"""Whether each finished appointment has its charge, the right one, and each charge its finished
appointment.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, Literal, TypeVar
from uuid import UUID

from msgspec import Struct

from clinic.domain.errors import NotFound
from clinic.domain.events import AppointmentFinished
from clinic.domain.financial.model import Charge
from clinic.domain.financial.ports import Charges
from clinic.domain.financial.pricing import Pricing
from clinic.domain.financial.related_letters import related_letters
from clinic.domain.messaging.dead_letters import DeadLetters
from clinic.domain.messaging.messages import PublicationStatus
from clinic.domain.messaging.ports import Clock
from clinic.domain.reconciliation.findings import Finding, missing, orphaned, wrong

Listed = TypeVar("Listed", AppointmentFinished, Charge)

PAGE_SIZE: Final = 1000
CONCURRENCY: Final = 100
"""How many are looked at again at a time."""
SECOND: Final = timedelta(seconds=1)


class Finished(Struct, frozen=True):
    """What the appointment context offers of its finished appointments.

    `page` shows up to so many, the newest id first, from behind an id; `find` shows one and how far the news
    of it was told,
    None where it is not finished; `tell` tells that news again.
    """

    page: Callable[[int, UUID | None], Awaitable[Sequence[AppointmentFinished]]]
    find: Callable[[UUID], Awaitable[tuple[AppointmentFinished, PublicationStatus | None] | None]]
    tell: Callable[[UUID], Awaitable[None]]


class AuditChunk(Struct, frozen=True):
    """A stretch of an audit: how many appointments, how many of those are in flight, and what was found among
    them.
    """

    appointments: int
    in_flight: int
    findings: Sequence[Finding]


class AuditCharges:
    """Compare finished appointments with charges, while both services run; nothing is changed.

    What does not agree is read again on both sides before it is reported; where it was finished, told or
    charged less than
    `grace` ago, it is in flight. A charge is judged by the policy that it names, what is missing by that of
    today.
    Raises `Unavailable`.
    """

    def __init__(self, charges: Charges, dead_letters: DeadLetters, pricing: Pricing, clock: Clock) -> None:
        self._charges, self._dead_letters, self._pricing, self._clock = charges, dead_letters, pricing, clock

    async def __call__(self, finished: Finished, grace: timedelta) -> AsyncIterator[AuditChunk]:
        count, suspects = 0, list[UUID]()
        async for appointment_id, event, charge in _side_by_side(finished.page, self._charges.by_appointment):
            count += 1
            if event is None or charge is None or wrong(event, charge):
                suspects.append(appointment_id)
            if count == PAGE_SIZE:
                yield await self._look_again(count, suspects, finished, grace)
                count, suspects = 0, []
        yield await self._look_again(count, suspects, finished, grace)

    async def size(self) -> int:
        """About how many appointments there are to compare. Raises `Unavailable`."""
        return await self._charges.count()

    async def _look_again(
        self, count: int, suspects: Sequence[UUID], finished: Finished, grace: timedelta
    ) -> AuditChunk:
        found: list[Finding | Literal["in flight"] | None] = []
        for first in range(0, len(suspects), CONCURRENCY):
            found += await asyncio.gather(
                *(self._judge(each, finished, grace) for each in suspects[first : first + CONCURRENCY])
            )
        return AuditChunk(
            count, found.count("in flight"), [each for each in found if isinstance(each, Finding)]
        )

    async def _judge(
        self, appointment_id: UUID, finished: Finished, grace: timedelta
    ) -> Finding | Literal["in flight"] | None:
        event, status = await finished.find(appointment_id) or (None, None)
        letters = await related_letters(appointment_id, self._dead_letters)
        charge = await self._charge(
            appointment_id
        )  # the last: a letter that is replayed meanwhile has its charge by now
        finding: Finding | None = None
        if event and charge:
            finding = wrong(event, charge)
        elif event:
            finding = missing(event, status, letters, self._pricing)
        elif charge:
            finding = orphaned(charge)
        return "in flight" if finding and self._is_younger(grace, event, status, charge) else finding

    async def _charge(self, appointment_id: UUID) -> Charge | None:
        try:
            return await self._charges.get(appointment_id)
        except NotFound:
            return None

    def _is_younger(
        self,
        grace: timedelta,
        event: AppointmentFinished | None,
        status: PublicationStatus | None,
        charge: Charge | None,
    ) -> bool:
        since = self._clock() - grace
        return (
            (event is not None and event.end > since - SECOND)  # an end is cut to the second
            or (status is not None and (status.published_at or status.saved_at) > since)
            or (charge is not None and charge.charged_at > since)
        )


async def _side_by_side(
    events: Callable[[int, UUID | None], Awaitable[Sequence[AppointmentFinished]]],
    charges: Callable[[int, UUID | None], Awaitable[Sequence[Charge]]],
) -> AsyncIterator[tuple[UUID, AppointmentFinished | None, Charge | None]]:
    """Both, the newest id first, together where they have the same. Holds a page of each."""
    some, others = _all(events), _all(charges)
    event, charge = await anext(some, None), await anext(others, None)
    while event or charge:
        newest = max(each.appointment_id for each in (event, charge) if each)
        one = event if event and event.appointment_id == newest else None
        other = charge if charge and charge.appointment_id == newest else None
        yield newest, one, other
        event = await anext(some, None) if one else event
        charge = await anext(others, None) if other else charge


async def _all(page: Callable[[int, UUID | None], Awaitable[Sequence[Listed]]]) -> AsyncIterator[Listed]:
    after: UUID | None = None
    while found := await page(PAGE_SIZE, after):
        for each in found:
            yield each
        after = found[-1].appointment_id
