"""`clinic demo`: one appointment from its start to its charge, with the time of each step."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from rich.console import Console

from clinic.domain.errors import Unavailable
from clinic.entrypoints.parent import PARENT

START_TIMEOUT = 20.0
STOP_TIMEOUT = 15.0
POLL_INTERVAL = 0.05
RUN = ("/bin/sh", "-c", '"$@" & wait; rm -rf -- "$0"')
"""Removes the folder behind the services, also when nobody of the demo is left to do it."""
LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Never goes through the proxy that the environment names."""


def add_to(commands: Any) -> None:
    """Add `demo` to the commands."""
    show = commands.add_parser(
        "demo", help="start and finish an appointment on a fresh folder, and see its charge arrive"
    )
    show.set_defaults(command=lambda _settings, _args: demo())


def demo() -> int:
    """Run both services on a fresh folder and free ports, and show each step.

    Leaves nothing behind, however it ends.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    console = Console(highlight=False)
    console.print("\n[bold]An appointment and its charge[/]   two processes, one event between them\n")
    with tempfile.TemporaryDirectory(prefix="clinic-demo-") as folder:
        appointments, charges = (f"http://127.0.0.1:{port}" for port in _free_ports())
        with _services(folder, appointments, charges):
            _show(console, appointments, charges)
    console.print("\n[dim]Both services have stopped, and the folder of their data is gone.[/]\n")
    return 0


def _show(console: Console, appointments: str, charges: str) -> None:
    def step(title: str, method: str, url: str, body: Mapping[str, str] | None = None, **headers: str) -> Any:
        began = time.perf_counter()
        answer = _call(method, url, body, headers)
        took = (time.perf_counter() - began) * 1000
        console.print(
            f"[green]●[/] [bold]{title:<22}[/] [cyan]{method:<4} /{url.split('/', 3)[3]}[/]  "
            f"[dim]{took:.1f} ms[/]"
        )
        for name, value in answer.items():
            console.print(
                f"    {name:<14} {value:.2f}" if isinstance(value, float) else f"    {name:<14} {value}"
            )
        return answer

    people, key = (
        {"physician_id": str(uuid4()), "patient_id": str(uuid4())},
        {"Idempotency-Key": str(uuid4())},
    )
    started = step("It starts", "POST", f"{appointments}/", people, **key)
    step("Asked for once more", "POST", f"{appointments}/", people, **key)
    path = f"/{started['id']}/"
    finished_at = time.perf_counter()
    step("It finishes", "POST", appointments + path)
    step("Its charge has arrived", "GET", charges + path, Prefer="wait=10")
    console.print(
        f"\n[bold]{(time.perf_counter() - finished_at) * 1000:.1f} ms[/] from the request to finish "
        f"to the charge"
    )


def _call(
    method: str, url: str, body: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
) -> Any:
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(  # noqa: S310 — always http
        url, data, {"Content-Type": "application/json", **(headers or {})}, method=method
    )
    try:
        with LOOPBACK.open(request, timeout=15) as answer:
            return json.load(answer)
    except OSError as error:
        raise Unavailable(f"{method} {url} got no answer: {error}") from error


@contextmanager
def _services(folder: str, appointments: str, charges: str) -> Iterator[None]:
    ports = {
        "CLINIC_APPOINTMENT_PORT": appointments.rpartition(":")[2],
        "CLINIC_FINANCIAL_PORT": charges.rpartition(":")[2],
    }
    hosts = {"CLINIC_APPOINTMENT_HOST": "127.0.0.1", "CLINIC_FINANCIAL_HOST": "127.0.0.1"}
    fresh = {
        "CLINIC_DATA_DIR": folder,
        "CLINIC_STORE": "sqlite",
        "CLINIC_TRANSPORT": "sqlite",
        "CLINIC_LOG_LEVEL": "error",
    }
    read, write = os.pipe()
    process = subprocess.Popen(
        [*RUN, folder, sys.executable, "-m", "clinic", "run"],
        env=os.environ | fresh | hosts | ports | {PARENT: str(read)},
        stdout=subprocess.DEVNULL,
        pass_fds=[read],
        process_group=0,  # a Ctrl-C reaches this process alone
    )
    os.close(read)
    try:
        for url in (appointments, charges):
            _await_ready(url, process)
        yield
    finally:
        os.close(write)  # what ends them when this process is killed ends them here, too
        process.wait(STOP_TIMEOUT)


def _await_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    give_up = time.monotonic() + START_TIMEOUT
    while process.poll() is None and time.monotonic() < give_up:
        try:
            _call("GET", f"{url}/health/ready")
        except Unavailable:
            time.sleep(POLL_INTERVAL)
        else:
            return
    raise Unavailable(f"the service at {url} did not start")


def _free_ports() -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    try:
        return [int(listening.getsockname()[1]) for listening in sockets]
    finally:
        for listening in sockets:
            listening.close()
