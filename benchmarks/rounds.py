"""Rounds in turn: each system runs every scenario once a round, so that a slow minute meets all of them."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from msgspec import Struct

from benchmarks import scenarios, servers
from benchmarks.figures import Measurement
from benchmarks.servers import Servers
from benchmarks.session import Session, session, until
from benchmarks.systems import System

SCENARIOS: Final = frozenset({"start", "keyed", "finish", "loaded", "idle", "rates", "drain"})
PAUSE: Final = 1.0
"""Seconds in which the servers clear up what a session left."""


class Plan(Struct, frozen=True, kw_only=True):
    """How much is measured. A scenario runs for `seconds`; `swept` are the rates up to saturation."""

    rounds: int = 3
    seconds: int = 8
    rates: Sequence[int] = (50, 200)
    swept: Sequence[int] = (25, 50, 100, 150, 200, 300, 400, 600, 800)
    scenarios: frozenset[str] = SCENARIOS


def measure(
    plan: Plan, systems: Sequence[System], show_measurement: Callable[[Measurement], None]
) -> tuple[list[Measurement], dict[str, str]]:
    """All rounds of these systems, and the versions of the servers."""
    found: list[Measurement] = []
    with ExitStack() as stack:
        running = stack.enter_context(servers.running()) if _needs_servers(systems) else None
        if (
            running
        ):  # Kafka's virtual machine compiles what it runs often: nobody's figures should pay for that
            for _ in _one(plan, next(system for system in systems if system.stack == "real"), running, 0):
                pass
        for number in range(plan.rounds):
            for system in systems:
                for measurement in _one(plan, system, running, number):
                    found.append(measurement)
                    show_measurement(measurement)
        for system in systems:
            for measurement in _swept(plan, system, running):
                found.append(measurement)
                show_measurement(measurement)
    return found, dict(running.versions) if running else {}


def _needs_servers(systems: Sequence[System]) -> bool:
    return any(system.stack == "real" for system in systems)


def _one(plan: Plan, system: System, running: Servers | None, number: int) -> Iterator[Measurement]:
    wanted = plan.scenarios if system.scenarios is None else plan.scenarios & system.scenarios
    with session(system, running, number) as opened:
        if wanted - {"drain"}:
            yield scenarios.begin(opened, "appointment")
        if "start" in wanted or "finish" in wanted:
            yield scenarios.start(opened, plan.seconds)
        if "keyed" in wanted and not system.is_peer:  # a peer ignores a key
            yield scenarios.start(opened, plan.seconds, keyed=True)
        if "finish" in wanted:
            yield scenarios.finish(opened, plan.seconds)
        if "loaded" in wanted and not system.is_peer:  # a peer has nothing at hand
            yield scenarios.finish_loaded(opened, plan.seconds)
        if wanted & {"idle", "rates", "drain"}:
            yield from _both(plan, opened, wanted)
    time.sleep(PAUSE)


def _both(plan: Plan, opened: Session, wanted: frozenset[str]) -> Iterator[Measurement]:
    yield scenarios.begin(opened, "financial")
    if wanted - {"drain"}:
        finished = opened.stored.finished()
        until(lambda: opened.stored.charges() >= finished, "every finish has a charge")
    if "idle" in wanted:
        yield scenarios.idle(opened, plan.seconds)
    if "rates" in wanted:
        for rate in plan.rates:
            yield scenarios.at_rate(opened, rate, plan.seconds)
    if "drain" in wanted:
        yield scenarios.drain(opened)


def _swept(plan: Plan, system: System, running: Servers | None) -> Iterator[Measurement]:
    """Rising load, until the system falls behind: once, as round 0."""
    if system.scenarios is not None or not plan.swept:
        return
    with session(system, running, 0) as opened:
        for service in ("appointment", "financial"):
            scenarios.begin(opened, service)
        for rate in plan.swept:
            measurement = scenarios.at_rate(opened, rate, max(2, plan.seconds / 2), "sweep")
            yield measurement
            if measurement.note:
                break
    time.sleep(PAUSE)
