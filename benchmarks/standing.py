"""How long the rounds of the standing audit take over a long history, and what services beside them feel.

    export PYTHONPATH=tests:.
    python benchmarks/standing.py FOLDER fill FIRST LAST TOTAL    # a part of the history
    python benchmarks/standing.py FOLDER index    # once all parts are there
    python benchmarks/standing.py FOLDER day    # a round of the last day
    python benchmarks/standing.py FOLDER all    # and one of all
    python benchmarks/standing.py FOLDER beside    # latency of the services without it, and during a turn

The SQLite files are filled directly, with `DAYS` days of finished appointments that all are charged.
"""

import asyncio
import random
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import httpx
import msgspec
from rich.console import Console
from support.ports import free_ports
from support.processes import PROGRAM, Pair, Service

from benchmarks.client import Connections, new_appointment, open_loop
from clinic.adapters.sqlite.file import milliseconds
from clinic.domain.events import AppointmentFinished, to_message
from clinic.domain.messaging.messages import Message
from clinic.domain.money import Money
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.settings import Settings

DAYS: Final = 100
BATCH: Final = 50_000
FILES: Final = ("appointment.db", "financial.db")
SECONDS: Final = 20.0
RATE: Final = 100
"""Starts, and finishes, a second."""
TURN_TIMEOUT: Final = 1200
HOUR: Final = 3_600_000
INDEXES: Final = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"

console = Console(highlight=False)


def fill(folder: Path, first: int, last: int, total: int, *, unpublished: bool = False) -> None:
    """Appointments from the one of that number on, evenly over the days before today.

    All are charged; or `unpublished`, none, and their events are in the outbox.
    """
    if first == 0:
        asyncio.run(_made(folder))
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    begin, step = milliseconds(today) - (DAYS - 1) * 24 * HOUR, DAYS * 24 * HOUR // total
    dice = random.Random(first)  # noqa: S311 — a seeded history
    everybody = [uuid4().bytes for _ in range(people(total))]
    appointment, financial = (_opened(folder / name) for name in FILES)
    with closing(appointment), closing(financial):
        for part in range(first, last, BATCH):
            rows = []
            for number in range(part, min(part + BATCH, last)):
                moment = begin + number * step
                its_id = ((moment << 80) | (7 << 76) | number).to_bytes(16, "big")
                start = moment // 1000 * 1000
                rows.append((its_id, dice.choice(everybody), dice.choice(everybody), start, start + HOUR))
            _insert(appointment, "appointments VALUES (?,?,?,20000,?,?,2)", rows)
            if unpublished:
                events = "outbox (id, subject, saved_at, message) VALUES (?,?,?,?)"
                _insert(appointment, events, [_event(row) for row in rows])
            else:
                charges = "charges VALUES (?,?,?,20000,?,?,'hours-begun','2',40000,?,'log/1',?,?,1)"
                _insert(financial, charges, [(*row, *[row[-1]] * 3) for row in rows])


def _event(row: tuple[bytes, bytes, bytes, int, int]) -> Sequence[object]:
    """As it stands in the outbox: saved when the appointment ended, or now where that is still to come."""
    its_id, physician, patient = (UUID(bytes=id_) for id_ in row[:3])
    start, end = (datetime.fromtimestamp(time // 1000, UTC) for time in row[3:])
    message = finished(its_id, physician, patient, start, end)
    saved_at = min(row[-1], milliseconds(datetime.now(UTC)))
    return message.id, message.subject, saved_at, msgspec.msgpack.encode(message)


def finished(its_id: UUID, physician: UUID, patient: UUID, start: datetime, end: datetime) -> Message:
    """The event of such an appointment."""
    price = Money("200.00")
    event = AppointmentFinished(
        appointment_id=its_id, physician_id=physician, patient_id=patient, price=price, start=start, end=end
    )
    return to_message(event)


def people(total: int) -> int:
    """Physicians and patients: each has some fifty appointments, however many there are."""
    return max(20, total // 50)


async def _made(folder: Path) -> None:
    """Both files as the services make them, without their indexes."""
    settings = Settings(data_dir=folder)
    for container in (AppointmentContainer(settings=settings), FinancialContainer(settings=settings)):
        await container.store().resource.open()
        await container.store().resource.close()
    for name in FILES:
        with closing(_opened(folder / name)) as connection:
            found = connection.execute(INDEXES).fetchall()
            (folder / f"{name}.indexes").write_text("".join(f"{sql};\n" for _, sql in found))
            for index, _ in found:
                connection.execute(f"DROP INDEX {index}")


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("PRAGMA synchronous=OFF; PRAGMA cache_size=-500000")
    return connection


def _insert(connection: sqlite3.Connection, into: str, rows: Sequence[Sequence[object]]) -> None:
    connection.execute("BEGIN")
    connection.executemany(f"INSERT INTO {into}", rows)
    connection.execute("COMMIT")


def index(folder: Path) -> None:
    """Make the indexes that were left out."""
    for name in FILES:
        with closing(_opened(folder / name)) as connection:
            connection.executescript((folder / f"{name}.indexes").read_text())
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def watcher(pair: Pair) -> Service:
    (port,) = free_ports(1)
    own = pair.environment | {"CLINIC_AUDIT_PORT": str(port), "CLINIC_LOG_FORMAT": "json"}
    command = (*PROGRAM, "audit", "--every", "1s")
    return Service("audit", command, own, pair.folder, f"http://127.0.0.1:{port}")


async def rounds(folder: Path, scope: str) -> None:
    """By a process of its own, until a round of that scope has ended."""
    audit = watcher(Pair(folder, {"CLINIC_DATA_DIR": str(folder)}))
    audit.start()
    try:
        await _said(audit, f'clinic_audit_round_seconds{{scope="{scope}"}}')
    finally:
        audit.clean_up()


async def _said(audit: Service, name: str) -> None:
    """Wait until that is more than 0, then print what the metrics say."""
    give_up, lines = time.monotonic() + TURN_TIMEOUT, list[str]()
    async with httpx.AsyncClient(base_url=audit.url, trust_env=False, timeout=60) as http:
        while time.monotonic() < give_up:
            await asyncio.sleep(1)
            try:
                lines = (await http.get("/metrics")).text.splitlines()
            except httpx.TransportError:
                continue
            found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
            if float(found[name]):
                break
        shown = [
            line for line in lines if line.startswith(("clinic_audit", "process_resident", "process_cpu"))
        ]
        console.print("\n".join(line for line in shown if "_created" not in line))


async def beside(folder: Path) -> None:
    """Starts and finishes at a steady rate: alone, and while a turn compares all."""
    pair = Pair(folder, {"CLINIC_DATA_DIR": str(folder)})
    audit = watcher(pair)
    try:
        await pair.started()
        port = int(pair.environment["CLINIC_APPOINTMENT_PORT"])
        await _loaded(port, "first, to warm up")
        await _loaded(port, "without the audit")
        audit.start()
        await audit.ready()  # its first round is over: the next compares all
        await _loaded(port, "during the turn")
    finally:
        for process in (audit, *pair.services):
            process.clean_up()


async def _loaded(port: int, when: str) -> None:
    """A start and its finish at each moment of the schedule, and how long the two took from then."""
    connections = Connections(port)

    async def visit(_: str) -> None:
        await connections.ask(f"POST /{await new_appointment(connections)}/")

    visits = await open_loop([str(number) for number in range(int(RATE * SECONDS))], RATE, visit)
    connections.close()
    took = sorted(1000 * (each.answered - each.due) for each in visits)
    p50, p99 = (took[int(share * len(took))] for share in (0.5, 0.99))
    console.print(f"{when}: {RATE} a second for {SECONDS:.0f} s, p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def main() -> None:
    folder, what, *numbers = sys.argv[1:]
    began = time.perf_counter()
    if what == "fill":
        fill(Path(folder), *map(int, numbers))
    elif what == "index":
        index(Path(folder))
    else:
        asyncio.run(beside(Path(folder)) if what == "beside" else rounds(Path(folder), what))
    console.print(f"{what}: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
