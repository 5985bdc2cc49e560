"""Mending what an audit found."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Literal

from msgspec import Struct

from clinic.domain.errors import NotFound, Refused
from clinic.domain.financial.ports import Charges
from clinic.domain.financial.related_letters import related_letters, set_aside
from clinic.domain.messaging.dead_letters import DeadLetters
from clinic.domain.money import Money
from clinic.domain.reconciliation.audit import CONCURRENCY, Finished
from clinic.domain.reconciliation.findings import Finding
from clinic.domain.tracing import shown


class Repair(Struct, frozen=True):
    """What became of one finding."""

    outcome: Literal["charged", "republished", "dead-lettered", "left alone"]
    explanation: str
    total: Money | None = None


class RepairCharges:
    """Tell the news of what is missing again, and wait so many seconds for its charges; all else is left
    alone.

    The findings come in stretches, of which some are told at a time. Where nothing came for all of these, the
    rest of all
    stretches is told and not waited for.
    Raises `Unavailable`: repeating it is safe.
    """

    def __init__(self, charges: Charges, dead_letters: DeadLetters) -> None:
        self._charges, self._dead_letters = charges, dead_letters

    async def __call__(
        self, chunks: AsyncIterator[Sequence[Finding]], finished: Finished, within: float
    ) -> AsyncIterator[tuple[Finding, Repair]]:
        async for some in _some_at_a_time(chunks):
            repairs = await asyncio.gather(*(self._repair(each, finished, within) for each in some))
            for pair in zip(some, repairs, strict=True):
                yield pair
            outcomes = {each.outcome for each in repairs}
            if "republished" in outcomes and "charged" not in outcomes:
                within = 0

    async def _repair(self, finding: Finding, finished: Finished, within: float) -> Repair:
        if finding.remedy != "republish":
            return Repair(
                "dead-lettered" if finding.remedy == "replay" else "left alone", _LEFT_ALONE[finding.remedy]
            )
        try:
            await finished.tell(finding.appointment_id)
        except Refused as reason:
            return Repair("left alone", f"left alone: {reason}")
        if within == 0:
            return Repair("republished", "republished")
        try:
            total = (await self._charges.wait_for(finding.appointment_id, within)).total
        except NotFound:
            return await self._not_charged(finding, finished)
        return Repair("charged", f"charged {total}", total)

    async def _not_charged(self, finding: Finding, finished: Finished) -> Repair:
        found = await finished.find(finding.appointment_id)
        letter = (await related_letters(finding.appointment_id, self._dead_letters)).own
        if letter:
            return Repair("dead-lettered", f"republished, and {set_aside(letter)}")
        status = found and found[1]
        if status and status.published_at:
            where = f"published {shown(status.published_at)} at {status.position}"
            return Repair(
                "republished", f"republished, {where}, not charged yet: is the financial service running?"
            )
        return Repair("republished", "republished, not published yet: is the appointment service running?")


async def _some_at_a_time(chunks: AsyncIterator[Sequence[Finding]]) -> AsyncIterator[Sequence[Finding]]:
    async for findings in chunks:
        for first in range(0, len(findings), CONCURRENCY):
            yield findings[first : first + CONCURRENCY]


_LEFT_ALONE = {
    "replay": "left to a person: see its dead letter",
    "publication": "left alone: it is about to be told",
    "a person": "left alone: only a person can decide",
}
