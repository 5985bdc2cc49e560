"""The faults under which services are recorded: each strikes a pair of its own, which serves a small load."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx
from support.deployments import Server
from support.ports import free_ports
from support.processes import PROGRAM, Pair, Process, Service

from clinic.domain.events import FINISHED_V1

STEPPED: Final = """
import sys
from datetime import timedelta
from pathlib import Path
from dependency_injector.providers import Object
from clinic.entrypoints.cli.main import main
from clinic.entrypoints.containers import AppointmentContainer, now
step = Path(sys.argv.pop(1))
AppointmentContainer.clock.override(Object(lambda: now() - timedelta(hours=step.exists())))
sys.exit(main())
"""
"""The program with an appointment clock that is an hour behind once that file is there."""
PAUSE: Final = 1.0
"""Seconds between two finishes."""
BURST: Final = 600
FROZEN: Final = 16
"""Finishes before a freeze that makes few of them late, and its seconds."""

Fault = Callable[[Pair], AbstractAsyncContextManager[None]]


async def finish(http: httpx.AsyncClient, pair: Pair) -> None:
    """One more appointment, from its start to its end, if the service answers."""
    people = {"physician_id": str(uuid4()), "patient_id": str(uuid4())}
    with suppress(httpx.HTTPError, KeyError):
        started = await http.post(f"{pair.appointment.url}/", json=people)
        await http.post(f"{pair.appointment.url}/{started.json()['id']}/")


async def load(http: httpx.AsyncClient, pair: Pair) -> None:
    while True:
        await asyncio.gather(finish(http, pair), asyncio.sleep(PAUSE))


async def burst(http: httpx.AsyncClient, pair: Pair) -> None:
    some = asyncio.Semaphore(8)

    async def one() -> None:
        async with some:
            await finish(http, pair)

    await asyncio.gather(*(one() for _ in range(BURST)))


@asynccontextmanager
async def calm(_: Pair) -> AsyncIterator[None]:
    yield


def away(server: Server) -> Fault:
    @asynccontextmanager
    async def fault(_: Pair) -> AsyncIterator[None]:
        async with server.away("stopped"):
            yield

    return fault


@asynccontextmanager
async def financial_down(pair: Pair) -> AsyncIterator[None]:
    pair.financial.send_to_all(signal.SIGKILL)
    await pair.financial.ended()
    yield
    pair.financial.start()


@asynccontextmanager
async def few_are_late(pair: Pair) -> AsyncIterator[None]:
    pair.financial.send(signal.SIGSTOP)
    await asyncio.sleep(FROZEN)
    pair.financial.send(signal.SIGCONT)
    yield


@asynccontextmanager
async def poison(pair: Pair) -> AsyncIterator[None]:
    """A foreign producer writes a finish that nobody can read."""
    with closing(sqlite3.connect(pair.data / "events.db", timeout=10)) as log, log:
        headers = f'[["ce_type", "{FINISHED_V1}"], ["ce_id", "1"]]'
        row = ("key", headers, b'{"foreign": 1}', int(time.time() * 1000))
        log.execute("INSERT INTO events (key, headers, value, published_at) VALUES (?,?,?,?)", row)
    yield


@asynccontextmanager
async def charges_locked(pair: Pair) -> AsyncIterator[None]:
    """Somebody else writes to the financial service's file, and does not come to an end."""
    with closing(sqlite3.connect(pair.data / "financial.db", timeout=10, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@asynccontextmanager
async def charge_lost(pair: Pair) -> AsyncIterator[None]:
    """Somebody removes charges by hand; a person ends it as the runbook says."""
    with closing(sqlite3.connect(pair.data / "financial.db", timeout=10)) as other, other:
        newest = "SELECT appointment_id FROM charges ORDER BY appointment_id DESC LIMIT 3"
        other.execute(f"DELETE FROM charges WHERE appointment_id IN ({newest})")
    yield
    repair = Process("repair", (*PROGRAM, "audit", "--repair"), pair.environment, pair.folder)
    repair.start()
    await repair.ended()


@asynccontextmanager
async def clock_off(pair: Pair) -> AsyncIterator[None]:
    (pair.folder / "step").touch()
    yield
    (pair.folder / "step").unlink()


@asynccontextmanager
async def log_unwritable(pair: Pair) -> AsyncIterator[None]:
    """Whoever reads the log is gone."""
    assert isinstance(pair.financial, Piped)
    pair.financial.reader.kill()
    yield


@asynccontextmanager
async def disk_full(pair: Pair) -> AsyncIterator[None]:
    found = os.statvfs(pair.data)
    filler = pair.data / "filler"
    filler.write_bytes(bytes(int(found.f_bavail * found.f_frsize * 0.95)))
    yield
    filler.unlink()


class Audited(Pair):
    """A pair with the standing audit beside it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(folder, environment)
        (port,) = free_ports(1)
        its = self.environment | {"CLINIC_AUDIT_PORT": str(port)}
        words = ("audit", "--every", "5s", "--grace", "10")
        self.audit = Service("audit", (*PROGRAM, *words), its, folder, f"http://127.0.0.1:{port}")

    async def started(self) -> None:
        await super().started()
        await self.audit.started()


class Piped(Service):
    """A service whose log goes to a reader that a test may take away."""

    reader: subprocess.Popen[bytes]

    def _spawned(self, *, with_keys: bool) -> subprocess.Popen[bytes]:
        assert not with_keys
        self.reader = subprocess.Popen(("cat",), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)  # noqa: S607 — wherever it is
        try:
            return subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.reader.stdin,
                start_new_session=True,
            )
        finally:
            assert self.reader.stdin
            self.reader.stdin.close()


def recorded(pair: Pair) -> Sequence[Service]:
    """All of it that is scraped."""
    return [*pair.services, pair.audit] if isinstance(pair, Audited) else pair.services


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of its own, which a fault may fill; needs root."""
    folder.mkdir(parents=True)
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(folder)), check=True)  # noqa: S607 — wherever it is
    try:
        yield
    finally:
        subprocess.run(("umount", "--lazy", str(folder)), check=True)  # noqa: S607 — wherever it is


def with_piped_log(pair: Pair) -> Pair:
    its = pair.financial
    pair.financial = Piped(its.name, its.command, pair.environment, pair.folder, its.url)
    return pair


def with_a_clock(pair: Pair) -> Pair:
    its = pair.appointment
    command = (PROGRAM[0], "-c", STEPPED, str(pair.folder / "step"), "run", "appointment")
    pair.appointment = Service(its.name, command, pair.environment, pair.folder, its.url)
    return pair
