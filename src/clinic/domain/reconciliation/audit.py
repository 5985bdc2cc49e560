"""Whether each finished appointment has its charge, the right one, and each charge its finished appointment."""

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
from clinic.domain.financial.related_letters import letters_about
from clinic.domain.messaging.dead_letters import DeadLetters
from clinic.domain.messaging.messages import Telling
from clinic.domain.messaging.ports import Clock
from clinic.domain.reconciliation.findings import Finding, missing, orphaned, wrong

Listed = TypeVar("Listed", AppointmentFinished, Charge)

PAGE: Final = 1000
SOME: Final = 100
"""How many are looked at again at a time."""
SECOND: Final = timedelta(seconds=1)


class Finished(Struct, frozen=True):
    """What the appointment context offers of its finished appointments.

    `page` shows up to so many, the newest id first, from behind an id; `find` shows one and how far the news of it was told,
    None where it is not finished; `tell` tells that news again.
    """

    page: Callable[[int, UUID | None], Awaitable[Sequence[AppointmentFinished]]]
    find: Callable[[UUID], Awaitable[tuple[AppointmentFinished, Telling | None] | None]]
    tell: Callable[[UUID], Awaitable[None]]


class Compared(Struct, frozen=True):
    """A stretch of an audit: how many appointments, how many of those are in flight, and what was found among them."""

    appointments: int
    in_flight: int
    findings: Sequence[Finding]


class AuditCharges:
    """Compare finished appointments with charges, while both services run; nothing is changed.

    What does not agree is read again on both sides before it is reported; where it was finished, told or charged less than
    `grace` ago, it is in flight. A charge is judged by the policy that it names, what is missing by that of today.
    Raises `Unavailable`.
    """

    def __init__(self, charges: Charges, dead_letters: DeadLetters, pricing: Pricing, clock: Clock) -> None:
        self._charges, self._dead_letters, self._pricing, self._clock = charges, dead_letters, pricing, clock

    async def __call__(self, finished: Finished, grace: timedelta) -> AsyncIterator[Compared]:
        count, suspects = 0, list[UUID]()
        async for appointment_id, fact, charge in _side_by_side(finished.page, self._charges.by_appointment):
            count += 1
            if fact is None or charge is None or wrong(fact, charge):
                suspects.append(appointment_id)
            if count == PAGE:
                yield await self._look_again(count, suspects, finished, grace)
                count, suspects = 0, []
        yield await self._look_again(count, suspects, finished, grace)

    async def size(self) -> int:
        """About how many appointments there are to compare. Raises `Unavailable`."""
        return await self._charges.count()

    async def _look_again(self, count: int, suspects: Sequence[UUID], finished: Finished, grace: timedelta) -> Compared:
        found: list[Finding | Literal["in flight"] | None] = []
        for first in range(0, len(suspects), SOME):
            found += await asyncio.gather(*(self._judge(each, finished, grace) for each in suspects[first : first + SOME]))
        return Compared(count, found.count("in flight"), [each for each in found if isinstance(each, Finding)])

    async def _judge(self, appointment_id: UUID, finished: Finished, grace: timedelta) -> Finding | Literal["in flight"] | None:
        fact, told = await finished.find(appointment_id) or (None, None)
        letters = await letters_about(appointment_id, self._dead_letters)
        charge = await self._charge(appointment_id)  # the last: a letter that is replayed meanwhile has its charge by now
        finding: Finding | None = None
        if fact and charge:
            finding = wrong(fact, charge)
        elif fact:
            finding = missing(fact, told, letters, self._pricing)
        elif charge:
            finding = orphaned(charge)
        return "in flight" if finding and self._is_younger(grace, fact, told, charge) else finding

    async def _charge(self, appointment_id: UUID) -> Charge | None:
        try:
            return await self._charges.get(appointment_id)
        except NotFound:
            return None

    def _is_younger(self, grace: timedelta, fact: AppointmentFinished | None, told: Telling | None, charge: Charge | None) -> bool:
        since = self._clock() - grace
        return (
            (fact is not None and fact.end > since - SECOND)  # an end is cut to the second
            or (told is not None and (told.published_at or told.saved_at) > since)
            or (charge is not None and charge.charged_at > since)
        )


async def _side_by_side(
    facts: Callable[[int, UUID | None], Awaitable[Sequence[AppointmentFinished]]],
    charges: Callable[[int, UUID | None], Awaitable[Sequence[Charge]]],
) -> AsyncIterator[tuple[UUID, AppointmentFinished | None, Charge | None]]:
    """Both, the newest id first, together where they have the same. Holds a page of each."""
    some, others = _all(facts), _all(charges)
    fact, charge = await anext(some, None), await anext(others, None)
    while fact or charge:
        newest = max(each.appointment_id for each in (fact, charge) if each)
        one = fact if fact and fact.appointment_id == newest else None
        other = charge if charge and charge.appointment_id == newest else None
        yield newest, one, other
        fact = await anext(some, None) if one else fact
        charge = await anext(others, None) if other else charge


async def _all(page: Callable[[int, UUID | None], Awaitable[Sequence[Listed]]]) -> AsyncIterator[Listed]:
    after: UUID | None = None
    while found := await page(PAGE, after):
        for each in found:
            yield each
        after = found[-1].appointment_id
