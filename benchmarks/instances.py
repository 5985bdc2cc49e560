"""One, two, four instances of each service under the same load together, on one MongoDB and one Kafka."""

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Final

import uvloop
from msgspec.structs import replace
from rich.console import Console
from support.ports import free_ports

from benchmarks import procfs
from benchmarks.client import Connections, FellBehindError, new_appointment, open_loop
from benchmarks.figures import percentile
from benchmarks.scenarios import SETTLES
from benchmarks.servers import Servers
from benchmarks.session import SERVICES, Session, session, until
from benchmarks.systems import System
from benchmarks.table import NONE

COUNTS: Final = (1, 2, 4)
WHERE: Final = {"finished where it was started": 0, "finished elsewhere": 1}
"""How many instances further: behind a balancer, of four instances three in four are elsewhere."""
STARTERS: Final = 16
"""Connections to an instance over which it is given what is to be finished."""
WARM: Final = 2.0
"""Seconds of load before those that are counted."""

console = Console(highlight=False, soft_wrap=True)


def measure(system: System, servers: Servers, rate: float, seconds: float, within: float) -> list[list[str]]:
    """The lines of a table. Ends the program where the charges are not one a finish."""
    found: dict[int, dict[str, float]] = {}
    for count in COUNTS:
        with session(system, servers, 0) as first, _running(first, count) as sessions:
            found[count] = {}
            for where, further in WHERE.items():
                figures = uvloop.run(_measured(sessions, further, rate, seconds, within))
                found[count] |= {f"{where}: {name}": value for name, value in figures.items()}
            until(lambda: first.stored.unpublished() == 0, "the outbox is empty", within)
            finished, charges = first.stored.finished(), first.stored.charges()
            console.print(f"{count} of each: {finished:,} finished, {charges:,} charged")
            if finished != charges:
                sys.exit("not one charge a finish")
    return _lines(found)


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


async def _measured(
    sessions: Sequence[Session], further: int, rate: float, seconds: float, within: float
) -> Mapping[str, float]:
    """Nothing where they fall behind."""
    connections = [Connections(each.port("appointment")) for each in sessions]
    stored = sessions[0].stored
    try:
        await _finish(await _started(connections, rate * WARM), connections, further, rate)
        until(lambda: stored.charges() >= stored.finished(), "all that is finished is charged", within)
        ids = await _started(connections, rate * seconds)
        expected, before = stored.charges() + len(ids), _snapshot(sessions)
        took = await _finish(ids, connections, further, rate)
        until(lambda: stored.charges() >= expected, f"{expected:,} charges", within)
        await asyncio.sleep(SETTLES)  # what is charged is confirmed
        used = procfs.spent(before, _snapshot(sessions))
    except FellBehindError:
        until(lambda: stored.charges() >= stored.finished(), "all that is finished is charged", within)
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
        "cores that others took": used.others,
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


def _lines(found: Mapping[int, Mapping[str, float]]) -> list[list[str]]:
    lines = [["", *map(str, found), f"{COUNTS[-1]} ÷ {COUNTS[0]}"]]
    for name in dict.fromkeys(chain(*found.values())):
        values = [figures.get(name) for figures in found.values()]
        digits = 0 if "CPU" in name or "—" in name else 2
        cells = [f"{value:,.{digits}f}" if value is not None else "falls behind" for value in values]
        ratio = values[-1] / values[0] if values[0] and values[-1] is not None else None
        lines.append([name, *cells, f"{ratio:.2f}" if ratio is not None else NONE])
    return lines
