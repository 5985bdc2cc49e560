"""One, two, four instances of each service on one MongoDB and one Kafka.

Under the same load together, or each under its own.
"""

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Final

import uvloop
from msgspec import Struct
from msgspec.structs import replace
from rich.console import Console
from support.ports import free_ports

from benchmarks import procfs
from benchmarks.client import Connections, FellBehindError, new_appointment, open_loop
from benchmarks.figures import figure, percentile
from benchmarks.scenarios import SETTLES
from benchmarks.servers import Servers
from benchmarks.session import SERVICES, Session, session, until
from benchmarks.systems import System
from benchmarks.table import NONE

COUNTS: Final = (1, 2, 4)
WHERE: Final = {"finished where it was started": 0, "finished elsewhere": 1}
"""How many instances further: behind a balancer, of four instances three in four are elsewhere."""
OTHERS: Final = "cores that others took"
STARTERS: Final = 16
"""Connections to an instance over which it is given what is to be finished."""
WARM: Final = 2.0
"""Seconds of load before those that are counted."""


class Load(Struct, frozen=True, kw_only=True):
    """Finishes a second, of all instances or of each; for how long, how often, the bound of each wait."""

    rate: float
    of_each: bool
    seconds: float
    rounds: int
    within: float


console = Console(highlight=False, soft_wrap=True)


def measure(system: System, servers: Servers, load: Load) -> list[list[str]]:
    """The lines of a table, medians of the rounds. Ends the program where a finish has not one charge."""
    found: dict[int, list[Mapping[str, float]]] = {count: [] for count in COUNTS}
    for number in range(load.rounds):
        for count in COUNTS:  # in turn: a broker that runs for longer takes less
            found[count].append(_round(system, servers, count, load))
            console.print(f"round {number + 1}, {count} of each: one charge a finish")
    return _lines(found)


def _round(system: System, servers: Servers, count: int, load: Load) -> Mapping[str, float]:
    figures: dict[str, float] = {}
    load = replace(load, rate=load.rate * (count if load.of_each else 1))
    with session(system, servers, 0) as first, _running(first, count) as sessions:
        for where, further in WHERE.items():
            one = uvloop.run(_measured(sessions, further, load))
            figures |= {f"{where}: {name}": value for name, value in one.items()}
        until(lambda: first.stored.unpublished() == 0, "the outbox is empty", load.within)
        finished, charges = first.stored.finished(), first.stored.charges()
        if finished != charges:
            sys.exit(f"{count} of each: {finished:,} finished, {charges:,} charged")
    return figures


@contextmanager
def _running(first: Session, count: int) -> Iterator[Sequence[Session]]:
    """So many pairs of services, all on the data of the first."""
    with ExitStack() as stack:
        sessions = [first]
        for number in range(1, count):
            folder = first.place.folder / str(number)
            folder.mkdir()
            ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
            sessions.append(Session(first.system, replace(first.place, folder=folder, ports=ports), number))
            stack.callback(sessions[-1].close)
        for each in sessions:
            for service in SERVICES:
                each.start(service)
        yield sessions


async def _measured(sessions: Sequence[Session], further: int, load: Load) -> Mapping[str, float]:
    """Nothing where they fall behind."""
    connections = [Connections(each.port("appointment")) for each in sessions]
    stored = sessions[0].stored
    try:
        await _finish(await _started(connections, load.rate * WARM), connections, further, load.rate)
        until(lambda: stored.charges() >= stored.finished(), "all that is finished is charged", load.within)
        ids = await _started(connections, load.rate * load.seconds)
        expected, before = stored.charges() + len(ids), _snapshot(sessions)
        took = await _finish(ids, connections, further, load.rate)
        until(lambda: stored.charges() >= expected, f"{expected:,} charges", load.within)
        await asyncio.sleep(SETTLES)  # what is charged is confirmed
        used = procfs.spent(before, _snapshot(sessions))
    except FellBehindError:
        until(lambda: stored.charges() >= stored.finished(), "all that is finished is charged", load.within)
        return {}
    finally:
        for each in connections:
            each.close()
    servers = sessions[0].place.servers
    cpu = {name: seconds * 1e6 / len(ids) for name, seconds in used.cpu.items()}
    of_servers = {f"— {name}": cpu.pop(name) for name in (servers.processes if servers else ())}
    return {
        "CPU µs a finish, all processes": sum(cpu.values()) + sum(of_servers.values()),
        "— the services": sum(cpu.values()),
        **of_servers,
        "answer p50, ms": percentile(took, 0.5),
        "answer p99, ms": percentile(took, 0.99),
        OTHERS: used.others,
    }


async def _started(connections: Sequence[Connections], count: float) -> Sequence[str]:
    """In turn by the instances."""

    async def some(by: Connections) -> list[str]:
        return [await new_appointment(by) for _ in range(round(count / len(connections) / STARTERS) or 1)]

    async def by_one(by: Connections) -> Sequence[str]:
        return list(chain(*await asyncio.gather(*(some(by) for _ in range(STARTERS)))))

    return list(chain(*zip(*[await by_one(each) for each in connections], strict=True)))


async def _finish(
    ids: Sequence[str], connections: Sequence[Connections], further: int, rate: float
) -> list[float]:
    """Milliseconds from the moment each was due to its answer."""
    by = {its_id: (number + further) % len(connections) for number, its_id in enumerate(ids)}
    answered = await open_loop(ids, rate, lambda its_id: connections[by[its_id]].ask(f"POST /{its_id}/"))
    return [(each.answered - each.due) * 1e3 for each in answered]


def _snapshot(sessions: Sequence[Session]) -> procfs.Snapshot:
    """Of all instances and the servers, each once."""
    servers = sessions[0].place.servers
    services = {
        f"{name} {number}": pid for number, each in enumerate(sessions) for name, pid in each.services.items()
    }
    return procfs.snapshot({**services, **(servers.processes if servers else {})})


def _lines(found: Mapping[int, Sequence[Mapping[str, float]]]) -> list[list[str]]:
    lines = [["", *(f"{count} of each" for count in found), f"{COUNTS[-1]} ÷ {COUNTS[0]}"]]
    for name in dict.fromkeys(chain(*chain(*found.values()))):
        values = [figure(one[name] for one in rounds if name in one) for rounds in found.values()]
        digits = 0 if "µs" in name or "—" in name else 2
        cells = [f"{value.median:,.{digits}f}" if value else "falls behind" for value in values]
        one, four = values[0], values[-1]
        is_ours = not name.endswith(OTHERS)
        lines.append([name, *cells, f"{four.median / one.median:.2f}" if one and four and is_ours else NONE])
    return lines
