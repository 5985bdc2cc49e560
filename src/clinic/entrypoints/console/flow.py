"""The flow: the newest appointments and what became of each, live while somebody looks."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from litestar import get
from litestar.di import NamedDependency
from litestar.response import Stream, Template
from msgspec import Struct
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from clinic.domain.errors import NotFound
from clinic.domain.messaging.ports import Monotonic
from clinic.domain.money import Money
from clinic.domain.reconciliation.tracing import WaitsFor
from clinic.entrypoints.console.charts import Scale, percentile, scale_of
from clinic.entrypoints.console.client import Away, Page, Services, or_away
from clinic.entrypoints.console.shapes import Appointment, Charge, Health
from clinic.entrypoints.console.view import View
from clinic.entrypoints.console.watching import Watch
from clinic.entrypoints.console.where import traced

SHOWN: Final = 30
CHARGES: Final = 100
"""Newest charges that are read: the financial service's largest page."""
TRACES: Final = 10
"""Traces that one look asks for. One that has come to its charge is asked for once."""
MAX_KNOWN: Final = 300
"""Charged appointments whose times are kept."""
SIGNS_INTERVAL: Final = 3.0
"""Seconds: what a service says of itself costs it more than a list."""
RETRY: Final = b"retry: 2000\n\n"
"""After how many milliseconds a browser opens a stream that broke again."""
NOTHING_NEW: Final = b":\n\n"
METRICS: Final = ("clinic_consumer_lag_events", "clinic_dead_letters{", "clinic_audit_")


class DatedCharge(Charge, frozen=True):
    """A charge, and when its appointment was."""

    start_date: datetime
    end_date: datetime


class Line(Struct, frozen=True):
    """An appointment and what became of it. `seconds`: from the save of its finish to its charge."""

    id: UUID
    start: datetime
    end: datetime | None = None
    total: Money | None = None
    seconds: float | None = None
    waits_for: WaitsFor | None = None

    @property
    def waits(self) -> float | None:
        """For how many seconds its charge is waited for."""
        if self.end is None or self.total is not None:
            return None
        return max(0.0, (datetime.now(UTC) - self.end.replace(tzinfo=UTC)).total_seconds())


class Signs(Struct, frozen=True):
    """How it is behind the services; None where it is not known. `problems` by service and part."""

    outbox: float | None = None
    lag: float | None = None
    letters: float | None = None
    findings: float | None = None
    problems: Sequence[tuple[str, str]] = ()


class Seen(Struct, frozen=True):
    """One look. `html` keeps the part of the page that shows it, by language."""

    lines: Sequence[Line]
    signs: Signs
    away: Sequence[Away]
    marks: Mapping[str, float | None]
    scale: Scale
    html: dict[str, str]


class Flow:
    """Looks at both services' lists, at traces of what is new, and at what each service says of itself."""

    def __init__(self, services: Services, monotonic: Monotonic = time.monotonic) -> None:
        self._services, self._monotonic = services, monotonic
        self._charged: dict[UUID, Line] = {}
        self._signs: tuple[float, Signs] | None = None

    async def __call__(self) -> Seen:
        """See what there is. A service that is away is named, and the rest is shown."""
        away: list[Away] = []
        appointment, financial = self._services.appointment, self._services.financial
        listed, charges, signs = await asyncio.gather(
            or_away(away, appointment.get(Page[Appointment], "/", {"limit": SHOWN})),
            or_away(away, financial.get(Page[DatedCharge], "/", {"limit": CHARGES})),
            self._signs_of_late(),
        )
        lines = _joined(listed.items if listed else None, charges.items if charges else [])
        lines = [self._charged.get(line.id, line) for line in lines]
        if not away:
            lines = await self._with_traces(lines)
        durations = [line.seconds for line in lines if line.seconds is not None]
        return Seen(
            lines=lines,
            signs=signs,
            away=away,
            marks={f"p{percent}": percentile(durations, percent) for percent in (50, 99)},
            scale=scale_of(durations + [line.waits for line in lines if line.waits is not None]),
            html={},
        )

    async def _with_traces(self, lines: Sequence[Line]) -> list[Line]:
        """What is charged comes first: it is asked for once."""
        new = [line for line in lines if line.end and line.id not in self._charged]
        new.sort(key=lambda line: line.total is None)
        found = await asyncio.gather(*(self._followed(line) for line in new[:TRACES]))
        followed = {line.id: line for line in found}
        return [followed.get(line.id, line) for line in lines]

    async def _followed(self, line: Line) -> Line:
        try:
            its = await traced(self._services, line.id)
        except (Away, NotFound):
            return line
        at = {step.event: step.at for step in its.steps}
        total = next((step.total for step in its.steps if step.event == "charged"), None)
        if total is None:
            return replace(line, waits_for=its.waits_for)
        seconds = max(0.0, (at["charged"] - at["saved"]).total_seconds()) if "saved" in at else None
        line = replace(line, total=total, seconds=seconds)
        if not its.unreadable:
            self._charged[line.id] = line
            if len(self._charged) > MAX_KNOWN:
                del self._charged[next(iter(self._charged))]
        return line

    async def _signs_of_late(self) -> Signs:
        if self._signs is None or self._monotonic() - self._signs[0] >= SIGNS_INTERVAL:
            self._signs = self._monotonic(), await _signs(self._services)
        return self._signs[1]


async def _signs(services: Services) -> Signs:
    everybody = (services.appointment, services.financial, services.audit)
    healths, metrics = await asyncio.gather(
        asyncio.gather(*(or_away([], service.health(Health)) for service in everybody)),
        asyncio.gather(*(or_away([], service.metrics()) for service in everybody[1:])),
    )
    values = _values("\n".join(filter(None, metrics)))
    findings = [values.get(f"clinic_audit_{kind}") for kind in ("missing", "orphaned", "wrong")]
    return Signs(
        outbox=healths[0].oldest_unpublished_seconds or 0.0 if healths[0] else None,
        lag=values.get("clinic_consumer_lag_events"),
        letters=values.get("waiting"),
        findings=None if None in findings else sum(filter(None, findings)),
        problems=[
            (service.name, problem)
            for service, health in zip(everybody, healths, strict=True)
            for problem in (health.checks.values() if health else ())
            if problem != "ok"
        ],
    )


def _values(page: str) -> Mapping[str, float]:
    """The metrics that are shown, by name; dead letters by state."""
    wanted = "".join(f"{line}\n" for line in page.splitlines() if line.startswith(METRICS))
    return {
        sample.labels.get("state", sample.name): sample.value
        for family in text_string_to_metric_families(wanted)
        for sample in family.samples
    }


def _joined(listed: Sequence[Appointment] | None, charges: Sequence[DatedCharge]) -> list[Line]:
    """The appointments with their charges; where the appointments cannot be asked, the charges' own."""
    if listed is None:
        return [
            Line(each.appointment_id, each.start_date, each.end_date, each.total_price)
            for each in charges[:SHOWN]
        ]
    totals = {each.appointment_id: each.total_price for each in charges}
    return [Line(each.id, each.start_date, each.end_date, totals.get(each.id)) for each in listed]


@get("/flow")
async def flow(view: NamedDependency[View], watch: NamedDependency[Watch[Seen]]) -> Template:
    """What there is to see now; a script keeps it so."""
    return view.page("flow", seen=await watch.now())


@get("/flow/events", is_live=True)
async def events(view: NamedDependency[View], watch: NamedDependency[Watch[Seen]]) -> Stream:
    """The same as it changes: server-sent events of HTML."""
    watch.check_free()
    headers = {"X-Accel-Buffering": "no"}  # nginx, in front
    return Stream(_events(view, watch), media_type="text/event-stream", headers=headers)


async def _events(view: View, watch: Watch[Seen]) -> AsyncIterator[bytes]:
    yield RETRY
    shown = ""
    async with aclosing(watch.follow()) as looks:
        async for seen in looks:
            html = seen.html.get(view.reader.language) or view.part("flow-part", seen=seen)
            seen.html[view.reader.language] = html
            yield NOTHING_NEW if html == shown else _event(html)
            shown = html


def _event(html: str) -> bytes:
    return "".join(f"data: {line}\n" for line in html.splitlines()).encode() + b"\n"


ROUTES: Final = [flow, events]
