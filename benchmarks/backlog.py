"""A backlog: a full outbox when the appointment service starts, then a full log when the other one does."""

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Final

import uvloop
from msgspec import Struct, field
from msgspec.structs import astuple
from rich.console import Console

from benchmarks import growth, procfs
from benchmarks.client import Connections, new_appointment
from benchmarks.figures import percentile
from benchmarks.session import Session, until
from benchmarks.table import NONE

PAUSE: Final = 0.2
"""Seconds between two looks."""
PATIENCE: Final = 20
"""After a look that took long, so many times as long: it must not take the machine from what it looks at."""
STATUS: Final = re.compile(rb'"status":"(\w+)"')
PUBLISHED: Final = re.compile(rb"^clinic_publish_batch_size_sum (\S+)$", re.MULTILINE)
Ask = Callable[[], Awaitable[bytes | str]]

console = Console(highlight=False, soft_wrap=True)


class Look(Struct, frozen=True):
    """When, how many events were done, resident bytes of the service, CPU seconds of all processes so far."""

    at: float
    done: float
    memory: float
    cpu: float


class Drain(Struct):
    """What a service did from its start to the end of its backlog."""

    service: str
    ready: float
    """Seconds."""
    looks: list[Look] = field(default_factory=list)
    took: dict[str, list[float]] = field(default_factory=dict)
    """Milliseconds of each answer, by request."""
    health: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    used: procfs.Spent = procfs.Spent(0, {}, 0)

    def rate(self, first: float, last: float) -> float:
        """Events a second between two shares of the backlog, as it was at the first look."""
        begin, end = self._at(first), self._at(last)
        return (end.done - begin.done) / (end.at - begin.at)

    def cpu(self, first: float, last: float) -> float:
        """CPU microseconds an event of all processes: this holds on a machine that others use too."""
        begin, end = self._at(first), self._at(last)
        return (end.cpu - begin.cpu) * 1e6 / (end.done - begin.done)

    def memory(self) -> Sequence[float]:
        """MB after each tenth of the backlog."""
        return [self._at(tenth / 10).memory / 1e6 for tenth in range(1, 11)]

    def _at(self, share: float) -> Look:
        """As it was when that share was done, between two looks."""
        lowest, highest = self.looks[0].done, self.looks[-1].done
        done = lowest + (highest - lowest) * share
        before, after = next(pair for pair in pairwise(self.looks) if pair[1].done >= done)
        part = (done - before.done) / max(1, after.done - before.done)
        pairs = zip(astuple(before), astuple(after), strict=True)
        return Look(*(earlier + (later - earlier) * part for earlier, later in pairs))


def measure(opened: Session, events: int, within: float) -> list[list[str]]:
    """The lines of a table. Ends the program where the charges are not one an event."""
    began = time.perf_counter()
    growth.fill(opened, events, unpublished=True)
    console.print(f"{events:,} filled in {time.perf_counter() - began:.0f} s")
    drains = uvloop.run(_drains(opened, events, within))
    for drain in drains:
        console.print(
            f"{drain.service}, MB after each tenth: {' '.join(f'{size:.0f}' for size in drain.memory())}"
        )
        console.print(
            f"- {len(drain.refused)} requests refused {drain.refused[:1]}; health: {sorted(drain.health)}"
        )
    console.print(f"{events:,} events, {opened.stored.charges():,} charges")
    if opened.stored.charges() != events:
        sys.exit("not one charge an event")
    return _lines(drains, events)


async def _drains(opened: Session, events: int, within: float) -> Sequence[Drain]:
    appointments, charges = (Connections(opened.port(service)) for service in ("appointment", "financial"))

    async def published() -> float:
        found = PUBLISHED.search(await appointments.ask("GET /metrics"))
        return float(found[1]) if found else 0

    async def charged() -> float:
        return opened.stored.charges()

    asks: Mapping[str, Ask] = {
        "POST /": lambda: new_appointment(appointments),
        "GET /": lambda: appointments.ask("GET /"),
        "GET /health/ready": lambda: appointments.ask("GET /health/ready"),
    }
    first = await _drained(Backlog("appointment", events, within, published), opened, asks)
    until(lambda: opened.stored.unpublished() == 0, "the outbox is empty", within)
    asks = {path: partial(charges.ask, path) for path in ("GET /", "GET /health/ready")}
    second = await _drained(Backlog("financial", events, within, charged), opened, asks)
    appointments.close()
    charges.close()
    return first, second


class Backlog(Struct, frozen=True):
    """What a service has before it: so many events, within so many seconds, and how many of them are done."""

    service: str
    events: int
    within: float
    done: Callable[[], Awaitable[float]]


async def _drained(backlog: Backlog, opened: Session, asks: Mapping[str, Ask]) -> Drain:
    before, began = opened.snapshot(), time.perf_counter()
    drain = Drain(backlog.service, opened.start(backlog.service))
    while True:
        asked = time.perf_counter()
        done = await backlog.done()
        at = time.perf_counter()
        cpu = sum(opened.snapshot().cpu.values())
        drain.looks.append(Look(at, done, opened.memory(backlog.service), cpu))
        if done >= backlog.events:
            if len(drain.looks) < 2:
                sys.exit(f"{backlog.events:,} events are too few: all were done at the first look")
            drain.used = procfs.spent(before, opened.snapshot())
            return drain
        if at > began + backlog.within:
            raise TimeoutError(
                f"{backlog.service}: {done:,.0f} of {backlog.events:,} events in {at - began:.0f} s"
            )
        for name, ask in asks.items():
            await _timed(drain, name, ask)
        await asyncio.sleep(max(PAUSE, (at - asked) * PATIENCE))


async def _timed(drain: Drain, name: str, ask: Ask) -> None:
    began = time.perf_counter()
    try:
        answer = await ask()
    except RuntimeError as error:
        drain.refused.append(str(error))
        return
    drain.took.setdefault(name, []).append((time.perf_counter() - began) * 1e3)
    if isinstance(answer, bytes) and name == "GET /health/ready" and (found := STATUS.search(answer)):
        drain.health.add(found[1].decode())


def _lines(drains: Sequence[Drain], events: int) -> list[list[str]]:
    figures: Mapping[str, Callable[[Drain], str]] = {
        "start to ready, s": lambda it: f"{it.ready:.2f}",
        "events/s": lambda it: f"{it.rate(0, 1):,.0f}",
        "— the first tenth, the last": lambda it: f"{it.rate(0, 0.1):,.0f} / {it.rate(0.9, 1):,.0f}",
        "CPU µs an event, with the start": lambda it: f"{it.used.cpu[it.service] * 1e6 / events:,.0f}",
        "— of all processes: the first tenth, the last": lambda it: (
            f"{it.cpu(0, 0.1):,.0f} / {it.cpu(0.9, 1):,.0f}"
        ),
        "— mongod": lambda it: _cpu(it, "mongod", events),
        "— kafka": lambda it: _cpu(it, "kafka", events),
        "POST /: p50 / p99, ms": lambda it: _latency(it.took.get("POST /")),
        "GET /: p50 / p99, ms": lambda it: _latency(it.took.get("GET /")),
        "GET /health/ready: p50 / p99, ms": lambda it: _latency(it.took.get("GET /health/ready")),
        "memory, MB: ready, most, at the end": _sizes,
        "memory, the last tenth ÷ the first": lambda it: f"{it.memory()[-1] / it.memory()[0]:.3f}",
        "cores that others took": lambda it: f"{it.used.others:.2f}",
    }
    heading = ["", *(drain.service for drain in drains)]
    return [heading, *([name, *map(of, drains)] for name, of in figures.items())]


def _cpu(drain: Drain, server: str, events: int) -> str:
    return f"{drain.used.cpu[server] * 1e6 / events:,.0f}" if server in drain.used.cpu else NONE


def _latency(took: Sequence[float] | None) -> str:
    return f"{percentile(took, 0.5):.1f} / {percentile(took, 0.99):.1f}" if took else NONE


def _sizes(drain: Drain) -> str:
    sizes = [look.memory / 1e6 for look in drain.looks]
    return f"{sizes[0]:.0f} / {max(sizes):.0f} / {sizes[-1]:.0f}"
