"""What each request costs over a history of a thousand, a hundred thousand, ten million appointments.

    make bench-growth STACK=embedded SIZES=1000,100000,10000000 SECONDS=2

The stores are filled directly, with finished appointments that all are charged. Then one client repeats each
request for so many seconds, and what the processes spent is read from /proc.
"""

import argparse
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import pymongo
import uvloop
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from bson.decimal128 import Decimal128
from msgspec.structs import asdict
from rich.console import Console

from benchmarks import machine, servers, standing, systems
from benchmarks.client import Connections, new_appointment
from benchmarks.procfs import spent
from benchmarks.session import Session, session
from benchmarks.table import aligned

SIZES: Final = "1000,100000,10000000"
BATCH: Final = 10_000
WARM: Final = 50
"""Requests before those that are counted."""
Ask = Callable[[], Awaitable[object]]

console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Measure and show."""
    asked = _parser().parse_args()
    sizes = [int(size) for size in asked.sizes.split(",")]
    console.print(f"{machine.machine()}, load before: {machine.load()}")
    system = systems.EMBEDDED if asked.stack == "embedded" else systems.CLINIC
    found: dict[int, Mapping[str, float]] = {}
    with servers.running() if asked.stack == "real" else nullcontext() as running:
        for size in sizes:
            with session(system, running, 0) as opened:
                began = time.perf_counter()
                fill(opened, size)
                console.print(f"{size:,} filled in {time.perf_counter() - began:.0f} s")
                found[size] = uvloop.run(_measured(opened, asked.seconds))
    _show(found)


def _show(found: Mapping[int, Mapping[str, float]]) -> None:
    smallest, largest = min(found), max(found)
    lines = [["", *(f"{size:,}" for size in found), "largest ÷ smallest"]]
    for name in found[smallest]:
        values = [each[name] for each in found.values()]
        ratio = found[largest][name] / found[smallest][name]
        lines.append([name, *(f"{value:,.0f}" for value in values), f"{ratio:.2f}"])
    console.print(f"\nCPU µs a request, all processes; the last lines: MB\n\n{aligned(lines)}")


async def _measured(opened: Session, seconds: float) -> Mapping[str, float]:
    for service in ("appointment", "financial"):
        opened.start(service)
    appointments, charges = (Connections(opened.port(service)) for service in ("appointment", "financial"))
    newest = (await appointments.ask("GET /?limit=1")).decode()
    its = {name: newest.partition(f'"{name}":"')[2][:36] for name in ("id", "physician_id", "patient_id")}
    deep = (await appointments.ask("GET /?limit=100")).decode().partition('"next":"')[2].partition('"')[0]
    started: list[str] = []

    async def start() -> None:
        started.append(await new_appointment(appointments))

    def get(connections: Connections, path: str) -> Ask:
        return lambda: connections.ask(f"GET {path}")

    today = datetime.now(UTC).strftime("%Y-%m-%dT00:00:00")
    asks: dict[str, Ask] = {
        "POST /": start,
        "POST /{id}/, to its charge": lambda: appointments.ask(f"POST /{started.pop()}/"),
        "GET /{id}/": get(appointments, f"/{its['id']}/"),
        "GET /{id}/trace/": get(appointments, f"/{its['id']}/trace/"),
        "GET /": get(appointments, "/"),
        "GET /, a page behind": get(appointments, f"/?after={deep}"),
    }
    of_people = {name: f"{name}={its[name]}" for name in ("physician_id", "patient_id")}
    filters = [*of_people.values(), "&".join(of_people.values())]
    for finished, people_of in itertools.product(("", "finished=false", "finished=true"), ("", *filters)):
        if query := "&".join(filter(None, (people_of, finished))):
            asks[f"GET /?{_names(query)}"] = get(appointments, f"/?{query}")
    asks["GET /?late"] = get(appointments, "/?late=30")
    asks["charge: GET /{id}/"] = get(charges, f"/{its['id']}/")
    for query in (
        "",
        *filters,
        f"charged_from={today}",
        f"charged_to={today}",
        f"{filters[0]}&charged_to={today}",
    ):
        asks[f"charges: GET /{'?' if query else ''}{_names(query)}"] = get(charges, f"/?{query}")
    found = {}
    for name, ask in asks.items():
        found[name] = await _cost(opened, ask, seconds)
        console.print(f"  {name}: {found[name]:,.0f} µs")
    appointments.close()
    charges.close()
    found |= {f"memory, {name}": opened.memory(name) / 1e6 for name in ("appointment", "financial")}
    return found


def _names(query: str) -> str:
    return "&".join(
        part if part.startswith("finished") else part.partition("=")[0] for part in query.split("&") if part
    )


async def _cost(opened: Session, ask: Ask, seconds: float) -> float:
    for _ in range(WARM):
        await ask()
    before, count, end = opened.snapshot(), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            await ask()
        except IndexError:  # all that were started are finished
            break
        count += 1
    return sum(spent(before, opened.snapshot()).cpu.values()) * 1e6 / max(count, 1)


def fill(opened: Session, size: int, *, unpublished: bool = False) -> None:
    """Finished appointments: all are charged; or `unpublished`, none, and their events are in the outbox."""
    if opened.place.servers:
        _fill_mongo(opened, size, unpublished)
    else:
        standing.fill(opened.place.folder, 0, size, size, unpublished=unpublished)
        standing.index(opened.place.folder)


def _fill_mongo(opened: Session, size: int, unpublished: bool) -> None:
    for service in ("appointment", "financial"):  # which make the indexes
        opened.start(service)
        opened.stop(service)
    assert opened.place.servers
    options = CodecOptions[dict[str, Any]](uuid_representation=UuidRepresentation.STANDARD)
    dice = random.Random(size)  # noqa: S311 — a seeded history
    people = [uuid4() for _ in range(standing.people(size))]
    begin = datetime.now(UTC).timestamp() - standing.DAYS * 86_400 - 3600  # so that all have ended
    with pymongo.MongoClient[dict[str, Any]](opened.place.servers.mongo_url) as client:
        _, appointment, financial = (client.get_database(name, options) for name in opened.place.databases)
        for first in range(0, size, BATCH):
            rows = [
                _document(number, begin + number * standing.DAYS * 86_400 / size, dice.choices(people, k=2))
                for number in range(first, min(first + BATCH, size))
            ]
            if unpublished:
                appointment["appointments"].insert_many([_waiting(row) for row, _ in rows], ordered=False)
                continue
            appointment["appointments"].insert_many([row for row, _ in rows], ordered=False)
            financial["charges"].insert_many([charge for _, charge in rows], ordered=False)


def _document(number: int, moment: float, people: list[UUID]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An appointment of an hour as it is stored, and its charge."""
    start = datetime.fromtimestamp(int(moment), UTC)
    end = datetime.fromtimestamp(int(moment) + 3600, UTC)
    its_id = UUID(int=(int(moment * 1000) << 80) | (7 << 76) | (2 << 62) | number)
    price, position = Decimal128("200.00"), f"log/0/{number}"
    common = {"physician_id": people[0], "patient_id": people[1], "price": price, "start": start, "end": end}
    published = {"published": {str(its_id): {"position": position, "at": end}}}
    origin = {"position": position, "published_at": end, "received_at": end, "attempts": 1}
    charge = {"pricing": "hours-begun", "hours": "1", "total": price, "charged_at": end, "origin": origin}
    stored = {"_id": its_id, **common, "version": 2, "added_at": start, "saved_at": end, **published}
    return stored, {"_id": its_id, **common, **charge}


def _waiting(stored: dict[str, Any]) -> dict[str, Any]:
    """The same whose event is not published, and was leased by a process that has ended."""
    its_id, start, end = (stored[name] for name in ("_id", "start", "end"))
    event = standing.finished(its_id, stored["physician_id"], stored["patient_id"], start, end)
    del stored["published"]
    lease = {"since": stored["saved_at"], "seconds": 10.0}
    return stored | {"outbox": [{**asdict(event), "saved_at": stored["saved_at"]}], "lease": lease}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description="Measure over a long history."
    )
    parser.add_argument("--stack", choices=("embedded", "real"), default="embedded")
    parser.add_argument("--sizes", default=SIZES, help="appointments that are stored, with commas")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each request")
    return parser


if __name__ == "__main__":
    main()
