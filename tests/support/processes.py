"""The program as real processes: started, watched, killed, and always ended. What they print is kept for a
test that fails.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TypeVar

import httpx

from support.ports import free_ports

T = TypeVar("T")

PROGRAM = (sys.executable, "-m", "clinic")
STARTS_TIMEOUT = 120.0
ENDS_TIMEOUT = 20.0
"""A service gives itself ten; the rest is for a machine that is busy with something else."""
LOOK_INTERVAL = 0.01

BEHIND = """
import sys
from datetime import timedelta
from dependency_injector.providers import Object
from clinic.entrypoints.cli.main import main
from clinic.entrypoints.containers import AppointmentContainer, now
behind = timedelta(seconds=float(sys.argv.pop(1)))
AppointmentContainer.clock.override(Object(lambda: now() - behind))
sys.exit(main())
"""
"""The program with an appointment clock that is this many seconds behind."""

IN_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
"""A command in the foreground of a terminal of its own, whose keys are what is written to standard input."""


async def eventually(
    condition: Callable[[], Awaitable[T]], *, within: float = 60.0, every: float = LOOK_INTERVAL
) -> T:
    """The first answer that is true. Fails when the time is over."""
    give_up = monotonic() + within
    while not (answer := await condition()):
        assert monotonic() < give_up, (
            f"not within {within} s: {getattr(condition, '__qualname__', condition)} still answers {answer!r}"
        )
        await asyncio.sleep(every)
    return answer


class Process:
    """A command as a process in a session of its own. It may be started again after it has ended; its logs go
    on.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        self.name = name
        self.command = list(command)
        self.folder = folder
        self.environment = {"PATH": os.environ["PATH"], **environment}
        self._running: subprocess.Popen[bytes] | None = None
        self._out = folder / f"{name}.out"
        self._err = folder / f"{name}.err"

    @property
    def printed(self) -> str:
        """All that it wrote to standard output so far."""
        return self._out.read_text() if self._out.exists() else ""

    @property
    def complained(self) -> str:
        """All that it wrote to standard error so far: its log, too."""
        return self._err.read_text() if self._err.exists() else ""

    @property
    def pid(self) -> int:
        assert self._running, f"{self.name} was never started"
        return self._running.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._running.poll() if self._running else None

    def start(self, *, with_keys: bool = False) -> None:
        assert self._running is None or self.exit_code is not None, f"{self.name} runs already"
        self._close_log()
        self._running = self._spawned(with_keys=with_keys)

    def _spawned(self, *, with_keys: bool) -> subprocess.Popen[bytes]:
        with self._out.open("ab") as out, self._err.open("ab") as err:
            return subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.PIPE if with_keys else subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        """To this process alone."""
        os.kill(self.pid, number)

    def send_to_all(self, number: signal.Signals) -> None:
        """To its whole group at once, as a terminal does."""
        os.killpg(self.pid, number)

    def press(self, keys: bytes) -> None:
        """To its standard input; it was started with keys."""
        assert self._running
        assert self._running.stdin
        self._running.stdin.write(keys)
        self._running.stdin.flush()

    def kill(self) -> None:
        """kill -9, and gone when this returns."""
        self.send(signal.SIGKILL)
        assert self._running
        self._running.wait(ENDS_TIMEOUT)

    async def ended(self, *, within: float = ENDS_TIMEOUT) -> int:
        """Its exit code, once it has ended."""

        async def has_ended() -> bool:
            return self.exit_code is not None

        await eventually(has_ended, within=within)
        assert self.exit_code is not None
        return self.exit_code

    def clean_up(self) -> None:
        """Leave nothing of it running, whatever state it is in."""
        if self._running is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._running.pid, signal.SIGKILL)
        self._running.wait(ENDS_TIMEOUT)
        self._close_log()

    def _close_log(self) -> None:
        if self._running and self._running.stdin:
            self._running.stdin.close()


class Service(Process):
    """A process that answers HTTP at `url`."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, url: str
    ) -> None:
        super().__init__(name, command, environment, folder)
        self.url = url

    def hear_half(self, sent: bytes) -> None:
        """A client that sends this and leaves, whatever the answer would be."""
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as leaving:
            leaving.sendall(sent)

    async def ready(self, *, within: float = STARTS_TIMEOUT) -> None:
        """Return once it says that it is ready. Fails as soon as the process ends instead."""
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            await eventually(lambda: self._is_ready(client), within=within)

    async def _is_ready(self, client: httpx.AsyncClient) -> bool:
        assert self.exit_code is None, f"{self.name} ended with {self.exit_code}: {self.complained}"
        try:
            return (await client.get("/health/ready")).is_success
        except httpx.TransportError:
            return False

    async def started(self) -> None:
        """Start it, and return once it is ready."""
        self.start()
        await self.ready()

    async def stopped(self) -> int:
        """Ask it to end, and return its exit code."""
        self.send(signal.SIGTERM)
        return await self.ended()


class Pair:
    """Both services on one data folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        appointment, financial = free_ports(2)
        self.folder = folder
        self.data = folder / "data"
        self.environment = {
            "CLINIC_DATA_DIR": str(self.data),
            "CLINIC_APPOINTMENT_PORT": str(appointment),
            "CLINIC_FINANCIAL_PORT": str(financial),
            "CLINIC_AUDIT_EVERY": "off",
            "CLINIC_CONSOLE": "off",
            **environment,
        }
        urls = {
            "appointment": f"http://127.0.0.1:{appointment}",
            "financial": f"http://127.0.0.1:{financial}",
        }
        self.appointment, self.financial = (
            Service(name, (*PROGRAM, "run", name), self.environment, folder, url)
            for name, url in urls.items()
        )

    @property
    def services(self) -> tuple[Service, Service]:
        return self.appointment, self.financial

    async def started(self) -> None:
        """Start both, and return once both are ready."""
        for service in self.services:
            service.start()
        for service in self.services:
            await service.ready()


async def nothing_answers(pair: Pair) -> bool:
    """Whether no service of the pair takes a connection any more."""
    async with httpx.AsyncClient(trust_env=False) as http:
        for service in pair.services:
            try:
                await http.get(f"{service.url}/health/live")
            except httpx.ConnectError:
                continue
            except httpx.TransportError:
                pass  # it is just closing
            return False
    return True
