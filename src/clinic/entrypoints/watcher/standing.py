"""The rounds: what was started in the last day, every few minutes, and once a day everything."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from clinic.domain.errors import ClinicError
from clinic.domain.messaging.ports import Clock, Jitter, Monotonic, Sleep, Telemetry
from clinic.domain.messaging.retry import backoff
from clinic.domain.reconciliation.audit import AuditCharges, AuditChunk, FinishedAppointments
from clinic.domain.reconciliation.findings import Finding
from clinic.domain.reconciliation.repair import Repair, RepairCharges
from clinic.entrypoints.watcher.findings import Findings
from clinic.entrypoints.watcher.metrics import KINDS, WatcherMetrics

DAY: Final = timedelta(days=1)
MAX_FINDINGS: Final = 10_000
"""Findings after which a round ends: whatever is wrong then, more of it says nothing new."""
FIRST_PAUSE: Final = 1.0
"""Seconds after a round that failed; doubled each time, up to the interval."""
MAX_LOGGED: Final = 100
"""New findings of one round that get a line in the log each."""
START: Final = UUID(int=0)
TIMESTAMP_BITS: Final = 80
"""Below the milliseconds in an id that is ordered by time (UUIDv7, RFC 9562)."""


class Plan(Struct, frozen=True, kw_only=True):
    """`every` so many seconds a round; what is younger than `grace` is in flight.

    A round repairs at most `repairs` missing charges (None: it repairs none), and waits up to `wait` seconds
    for each batch of them.
    """

    every: float
    grace: timedelta
    repairs: int | None = None
    wait: float = 10.0


class Sides(Struct, frozen=True):
    """Both contexts, open for one round."""

    compare: AuditCharges
    repair: RepairCharges
    finished: FinishedAppointments


class Brake:
    """Lets a round repair so many and no more. It stays on until a round needs no more than that."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._left = self.needed = 0
        self.is_on = False

    def begin(self) -> None:
        self._left = 0 if self.is_on else self._limit or 0
        self.needed = 0

    def allowed(self, findings: Sequence[Finding]) -> Sequence[Finding]:
        """Those of them that may be repaired in this round."""
        missing = [finding for finding in findings if finding.remedy == "republish"]
        self.needed += len(missing)
        allowed = missing[: self._left]
        self._left -= len(allowed)
        return allowed

    def end(self) -> None:
        self.is_on = self._limit is not None and self.needed > self._limit

    def __str__(self) -> str:
        """For a person; empty where it is off."""
        if not self.is_on:
            return ""
        at_most = f"more than the {self._limit} that a round repairs"
        return f"{self.needed} charges are missing, {at_most}: look, then `clinic audit --repair`"


class StandingAudit:
    """Compares again and again, keeps what it finds, and repairs as its plan says.

    Ids are ordered by the time of the start, so a round compares what was started in the last day, and looks
    again at what is known from before. The first round is such a one; the next, and once a day another,
    compares all: what was open for longer than a day and is finished now waits for that. A round that fails
    changes nothing of what is known. `open_sides` raises `ClinicError` where a store cannot be read.
    """

    def __init__(
        self,
        open_sides: Callable[[], AbstractAsyncContextManager[Sides]],
        plan: Plan,
        clock: Clock,
        sleep: Sleep,
        monotonic: Monotonic,
        jitter: Jitter,
        telemetry: Telemetry,
        metrics: WatcherMetrics,
    ) -> None:
        self._open_sides, self._plan = open_sides, plan
        self._clock, self._sleep = clock, sleep
        self._monotonic, self._jitter = monotonic, jitter
        self._telemetry, self._metrics = telemetry, metrics
        self._brake = Brake(plan.repairs)
        self._failure = self._too_many = ""
        self._last_of_all: datetime | None = None
        self._suspects = set[UUID]()
        self._in_flight = set[UUID]()
        self.findings = Findings()
        self.last_success: datetime | None = None

    @property
    def problem(self) -> str | None:
        """What keeps it from looking, or asks for a person."""
        return self._failure or str(self._brake) or self._too_many or None

    @property
    def is_overdue(self) -> bool:
        """Whether three rounds could have ended since one did."""
        patience = timedelta(seconds=3 * self._plan.every)
        return self.last_success is None or self._clock() - self.last_success > patience

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            for wait in backoff(self._jitter, FIRST_PAUSE, max(FIRST_PAUSE, self._plan.every)):
                try:
                    await self._round()
                except ClinicError as reason:
                    self._failure = str(reason)
                    self._metrics.failures.inc()
                    self._telemetry("audit waits", reason=self._failure)
                    await self._sleep(wait)
                else:
                    break
            await self._sleep(self._plan.every)

    async def _round(self) -> None:
        now, began = self._clock(), self._monotonic()
        is_due = self._last_of_all is None or now - self._last_of_all >= DAY
        of_all = is_due and self.last_success is not None
        since = START if of_all else first_id(now - DAY)
        counted = Counter[str]()
        self._brake.begin()
        async with self._open_sides() as sides:
            found = await self._found(sides, since, counted)
        self._brake.end()
        self._suspects = {finding.appointment_id for finding, _ in found} | self._in_flight
        self._failure, self.last_success = "", self._clock()
        self._last_of_all = now if of_all else self._last_of_all
        scope = "all" if of_all else "day"
        self._metrics.round_duration.labels(scope).set(self._monotonic() - began)
        self._report(self.findings.replace(found, now), counted, scope)

    async def _found(
        self, sides: Sides, since: UUID, counted: "Counter[str]"
    ) -> Sequence[tuple[Finding, Repair | None]]:
        """What is found and is not charged by now."""
        found: dict[UUID, tuple[Finding, Repair | None]] = {}

        async def to_repair() -> AsyncIterator[Sequence[Finding]]:
            async for chunk in self._compared(sides, since):
                counted.update(compared=chunk.appointments, in_flight=chunk.in_flight)
                self._metrics.checked.inc(chunk.appointments)
                found.update((finding.appointment_id, (finding, None)) for finding in chunk.findings)
                yield self._brake.allowed(chunk.findings)
                if len(found) >= MAX_FINDINGS:
                    break

        async for finding, repair in sides.repair(to_repair(), sides.finished, self._plan.wait):
            self._repaired(finding, repair)
            found[finding.appointment_id] = finding, repair
        self._too_many = f"more than {MAX_FINDINGS} findings" if len(found) >= MAX_FINDINGS else ""
        return [each for each in found.values() if not each[1] or each[1].outcome != "charged"]

    async def _compared(self, sides: Sides, since: UUID) -> AsyncIterator[AuditChunk]:
        older = [id_ for id_ in self._suspects if id_ < since][:MAX_FINDINGS]
        again = await sides.compare.read_again(older, sides.finished, self._plan.grace)
        # One that was published anew is in flight, and no finding: it is a suspect until it is charged.
        may_be_in_flight = self._suspects if since == START else older if again.in_flight else ()
        self._in_flight = set(may_be_in_flight)
        yield again
        async for chunk in sides.compare(sides.finished, self._plan.grace, since):
            yield chunk

    def _repaired(self, finding: Finding, repair: Repair) -> None:
        if repair.outcome in {"charged", "republished"}:
            self._metrics.repairs.labels(repair.outcome).inc()
        details = {"appointment_id": str(finding.appointment_id), "outcome": repair.explanation}
        self._telemetry("audit repairs", **details)

    def _report(self, new: Sequence[Finding], counted: "Counter[str]", scope: str) -> None:
        for finding in new[:MAX_LOGGED]:
            details = {"kind": finding.kind, "explanation": finding.explanation}
            self._telemetry("audit finds", appointment_id=str(finding.appointment_id), **details)
        if self._brake.is_on:
            self._telemetry("audit needs a person", reason=str(self._brake))
        counts = {kind: self.findings.count(kind) for kind in KINDS}
        self._telemetry("audited", scope=scope, **counted, **counts)
        for kind, count in counts.items():
            self._metrics.findings[kind].set(count)
        self._metrics.braked.set(self._brake.is_on)
        if self.last_success:
            self._metrics.last_success.set(self.last_success.timestamp())


def first_id(moment: datetime) -> UUID:
    """The first of all ids of appointments that start at this moment."""
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << TIMESTAMP_BITS)
