"""One session of a system: its services as processes, on a database, a topic and a folder of its own."""

import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx
from support.ports import free_ports

from benchmarks import procfs
from benchmarks.figures import Measurement
from benchmarks.servers import Servers
from benchmarks.systems import Place, Stored, System, stored

STARTS_TIMEOUT: Final = 30.0
ENDS_TIMEOUT: Final = 15.0
SERVICES: Final = ("appointment", "financial")


class Session:
    """The running system. Its services are started one by one, as a scenario needs them."""

    def __init__(self, system: System, place: Place, number: int) -> None:
        self.system = system
        self.place = place
        self.number = number
        self.stored: Stored = stored(system, place)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, service: str) -> float:
        """Seconds until it is ready. Raises `RuntimeError` where it does not become so."""
        port = self.place.ports[service]
        command = [part.format(service=service, port=port) for part in self.system.command]
        log = self.place.folder / f"{service}.log"
        began = time.perf_counter()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=self.place.environment(self.system),
                cwd=self.place.folder,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the benchmark, which then ends it
            )
        self._running[service] = process
        while not _is_ready(port):
            if process.poll() is not None or time.perf_counter() - began > STARTS_TIMEOUT:
                raise RuntimeError(f"{self.system.name}: {service} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.005)
        return time.perf_counter() - began

    def stop(self, service: str) -> None:
        """Ask it to end, and see to it."""
        if process := self._running.pop(service, None):
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
            try:
                process.wait(ENDS_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def port(self, service: str) -> int:
        return self.place.ports[service]

    def memory(self, service: str) -> int:
        """Resident bytes."""
        return procfs.memory(self._running[service].pid)

    @contextmanager
    def paused(self, service: str) -> Iterator[None]:
        """It stands still, so that a backlog can grow."""
        os.kill(self._running[service].pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._running[service].pid, signal.SIGCONT)

    @property
    def services(self) -> Mapping[str, int]:
        """The processes that run, by name."""
        return {name: process.pid for name, process in self._running.items()}

    def snapshot(self) -> procfs.Snapshot:
        """CPU time so far of the services and servers."""
        servers = self.place.servers.processes if self.place.servers else {}
        return procfs.snapshot({**self.services, **servers})

    def measurement(
        self, scenario: str, spent: procfs.Spent, values: Mapping[str, float], operations: float = 0
    ) -> Measurement:
        """With CPU microseconds an operation for each process, if there were operations."""
        cpu = {f"cpu.{name}": seconds * 1e6 / operations for name, seconds in spent.cpu.items() if operations}
        return Measurement(
            stack=self.system.stack,
            system=self.system.name,
            scenario=scenario,
            round=self.number,
            values=cpu | dict(values),
            others=spent.others,
        )

    def close(self) -> None:
        for service in tuple(self._running):
            self.stop(service)
        self.stored.close()


@contextmanager
def session(system: System, servers: Servers | None, number: int) -> Iterator[Session]:
    """A system on fresh data, which is removed at the end."""
    servers = servers if system.stack == "real" else None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clinic-bench-")))
        ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        place = Place(run=f"bench-{uuid.uuid4().hex[:8]}", folder=folder, ports=ports, servers=servers)
        if servers:
            servers.make_topic(place.run)
            stack.callback(servers.drop, place.run, place.databases)
        running = Session(system, place, number)
        stack.callback(running.close)
        yield running


def until(holds: Callable[[], bool], name: str, within: float = 60.0) -> None:
    """Return once it holds. Raises `TimeoutError`, saying what did not happen."""
    give_up = time.perf_counter() + within
    while not holds():
        if time.perf_counter() > give_up:
            raise TimeoutError(f"not within {within:g} s: {name}")
        time.sleep(0.02)


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready", trust_env=False).is_success
    except httpx.TransportError:
        return False
