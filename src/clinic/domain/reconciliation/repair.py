"""Repairs what an audit found."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Literal

from msgspec import Struct

from clinic.domain.errors import NotFound, Refused
from clinic.domain.financial.ports import Charges
from clinic.domain.financial.related_letters import next_step, related_letters
from clinic.domain.messaging.dead_letters import DeadLetters
from clinic.domain.money import Money
from clinic.domain.reconciliation.audit import CONCURRENCY, FinishedAppointments
from clinic.domain.reconciliation.findings import Finding
from clinic.domain.tracing import shown


class Repair(Struct, frozen=True):
    """What became of one finding."""

    outcome: Literal["charged", "republished", "dead-lettered", "left alone"]
    explanation: str
    total: Money | None = None


class RepairCharges:
    """Republish the events of missing charges and wait for the charges; leave everything else alone.

    The findings come in chunks and are repaired a batch at a time, each within `timeout` seconds. After a
    batch in which nothing was charged, the rest is republished without waiting. Raises `Unavailable`:
    repeating it is safe.
    """

    def __init__(self, charges: Charges, dead_letters: DeadLetters) -> None:
        self._charges, self._dead_letters = charges, dead_letters

    async def __call__(
        self, chunks: AsyncIterator[Sequence[Finding]], finished: FinishedAppointments, timeout: float
    ) -> AsyncIterator[tuple[Finding, Repair]]:
        async for batch in _batches(chunks):
            repairs = await asyncio.gather(*(self._repair(finding, finished, timeout) for finding in batch))
            for pair in zip(batch, repairs, strict=True):
                yield pair
            outcomes = {repair.outcome for repair in repairs}
            if "republished" in outcomes and "charged" not in outcomes:
                timeout = 0

    async def _repair(self, finding: Finding, finished: FinishedAppointments, timeout: float) -> Repair:
        if finding.remedy != "republish":
            return Repair(
                "dead-lettered" if finding.remedy == "replay" else "left alone", _LEFT_ALONE[finding.remedy]
            )
        try:
            await finished.republish(finding.appointment_id)
        except Refused as reason:
            return Repair("left alone", f"left alone: {reason}")
        if timeout == 0:
            return Repair("republished", "republished")
        try:
            total = (await self._charges.wait_for(finding.appointment_id, timeout)).total
        except NotFound:
            return await self._not_charged(finding, finished)
        return Repair("charged", f"charged {total}", total)

    async def _not_charged(self, finding: Finding, finished: FinishedAppointments) -> Repair:
        found = await finished.find(finding.appointment_id)
        letter = (await related_letters(finding.appointment_id, self._dead_letters)).own
        if letter:
            return Repair("dead-lettered", f"republished, and {next_step(letter)}")
        status = found and found[1]
        if status and status.published_at:
            where = f"published {shown(status.published_at)} at {status.position}"
            return Repair(
                "republished", f"republished, {where}, not charged yet: is the financial service running?"
            )
        return Repair("republished", "republished, not published yet: is the appointment service running?")


async def _batches(chunks: AsyncIterator[Sequence[Finding]]) -> AsyncIterator[Sequence[Finding]]:
    async for findings in chunks:
        for first in range(0, len(findings), CONCURRENCY):
            yield findings[first : first + CONCURRENCY]


_LEFT_ALONE = {
    "replay": "left to a person: see its dead letter",
    "publication": "left alone: it is about to be published",
    "a person": "left alone: only a person can decide",
}
