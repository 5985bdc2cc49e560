# ruff: noqa: INP001 — a script's folder is no package
"""How many requests a second the appointment service answers, durable, against the same app storing nothing.

    .venv/bin/python benchmarks/throughput.py [seconds a round]

The service runs in a process of its own on a fresh SQLite folder, or on what CLINIC_STORE and
CLINIC_TRANSPORT name.
`wrk` (Debian: apt-get install wrk) drives it over 64
connections, in turn: A stores, B validates the same and answers the same shape and stores nothing, A again.
Behind the finishes the relay publishes into the event log meanwhile: that work is in their figures.
"""

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from statistics import mean
from uuid import UUID, uuid4

import uvloop
from litestar import Litestar, Response, post
from litestar.params import JSONBody
from rich.console import Console

from clinic.domain.appointment.model import Appointment
from clinic.entrypoints.containers import AppointmentContainer, now
from clinic.entrypoints.service import Lifecycle, Service, serve
from clinic.entrypoints.settings import load
from clinic.entrypoints.telemetry import configure_logging
from clinic.entrypoints.web import appointment
from clinic.entrypoints.web.appointment import AppointmentResponse, NewAppointment
from clinic.entrypoints.web.problems import json_body

CONNECTIONS = 64
PREPARED = 100_000
"""Appointments that wait to be finished: more than a round finishes."""

START = """
wrk.method = "POST"
wrk.path = "{path}"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{{"physician_id": "8c9b1b0e-5d3f-4c39-9a53-0b9d3b1f8f10", ' ..
  '"patient_id": "2f1c7f3a-6b0c-4a57-8f6e-7f9f1d2b3c4d"}}'
"""
FINISH = """
local ids = {{}}
for id in io.lines("{ids}") do ids[#ids + 1] = id end
local at = {skip}
request = function()
  at = at + 1
  return wrk.format("POST", "{prefix}/" .. ids[(at - 1) % #ids + 1] .. "/")
end
"""


def app(container: AppointmentContainer, life: Lifecycle) -> Litestar:
    """The appointment service, and beside its routes the same ones without a store."""
    price, new_id = container.settings().hourly_price, uuid4
    made = appointment.create_app(container, life)

    @post("/nothing", before_request=json_body(NewAppointment), status_code=HTTPStatus.CREATED)
    async def start(data: JSONBody[NewAppointment]) -> Response[AppointmentResponse]:
        started = Appointment.started(
            id=new_id(), physician_id=data.physician_id, patient_id=data.patient_id, price=price, now=now()
        )
        return Response(appointment._response(started), headers={"Location": f"/{started.id}/"})  # noqa: SLF001 — the same shape

    @post("/nothing/{appointment_id:uuid}/", status_code=HTTPStatus.OK)
    async def finish(appointment_id: UUID) -> AppointmentResponse:
        started = Appointment.started(
            id=appointment_id, physician_id=appointment_id, patient_id=appointment_id, price=price, now=now()
        )
        return appointment._response(started.finish(now())[0])  # noqa: SLF001 — the same shape

    made.register(start)
    made.register(finish)
    return made


async def served() -> None:
    """The service, until SIGTERM."""
    settings = load(os.environ)
    configure_logging(settings)
    container = AppointmentContainer(settings=settings)
    life = Lifecycle(container.telemetry())
    if "prepare" in sys.argv:
        await _prepare(container, Path(sys.argv[-1]))
    await serve(
        Service(
            app(container, life),
            life,
            settings.appointment_host,
            settings.appointment_port,
            "CLINIC_APPOINTMENT",
            settings.keep_alive,
        )
    )


async def _prepare(container: AppointmentContainer, ids: Path) -> None:
    opened = container.resources()
    for each in opened:
        await each.open()
    start, person = container.start_appointment(), uuid4()
    with ids.open("w") as file:
        for _ in range(PREPARED // 1000):
            started = await asyncio.gather(*(start(person, person) for _ in range(1000)))
            file.writelines(f"{each.id}\n" for each in started)
    for each in opened:
        await each.close()


def rounds(console: Console, stack: ExitStack, seconds: int) -> None:
    """A/B/A of both requests."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clinic-benchmark-")))
    url = _service(stack, folder)
    script = folder / "wrk.lua"
    _drive(script, START.format(path="/"), url, 2)
    for name, stored, nothing in (
        ("POST /", START.format(path="/"), START.format(path="/nothing")),
        (
            "POST /{id}/",
            FINISH.format(ids=folder / "ids", prefix="", skip=0),
            FINISH.format(ids=folder / "ids", prefix="/nothing", skip=0),
        ),
    ):
        first, bare = _drive(script, stored, url, seconds), _drive(script, nothing, url, seconds)
        # Each finish is a first one: the last round goes on behind the first.
        again = stored.replace("local at = 0", f"local at = {int(first[0] * seconds * 1.1)}")
        second = _drive(script, again, url, seconds)
        for what, (rate, latency) in (("A stores", first), ("B stores nothing", bare), ("A stores", second)):
            console.print(
                f"{name:<12} {what:<17} {rate:>8,.0f} requests/s   p50 {latency[0]}  p99 {latency[1]}"
            )
        console.print(f"{name:<12} ratio A/B         {mean([first[0], second[0]]) / bare[0]:>8.2f}\n")


def _drive(script: Path, lua: str, url: str, seconds: int) -> tuple[float, tuple[str, str]]:
    """Requests a second, and p50 and p99."""
    script.write_text(lua)
    wrk = shutil.which("wrk") or sys.exit("wrk is not here: apt-get install wrk")
    command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        sys.exit(said)
    found = {name: re.findall(rf"{name}:?\s+([\d.]+\w*)", said)[0] for name in ("50%", "99%", "Requests/sec")}
    return float(found["Requests/sec"]), (found["50%"], found["99%"])


def _service(stack: ExitStack, folder: Path) -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "CLINIC_DATA_DIR": str(folder),
        "CLINIC_APPOINTMENT_PORT": str(port),
        "CLINIC_LOG_LEVEL": "warning",
    }
    process = subprocess.Popen(
        [sys.executable, __file__, "serve", "prepare", str(folder / "ids")], env=os.environ | settings
    )
    stack.callback(process.wait, 15)
    stack.callback(process.terminate)
    url = f"http://127.0.0.1:{port}"
    give_up = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < give_up:
        try:
            urllib.request.urlopen(f"{url}/health/ready")  # noqa: S310 — always http
        except urllib.error.URLError:
            time.sleep(0.05)
        else:
            return url
    return sys.exit("the service did not start")


if __name__ == "__main__":
    if "serve" in sys.argv:
        uvloop.run(served())
    else:
        with ExitStack() as opened:
            rounds(Console(highlight=False), opened, int(sys.argv[1]) if len(sys.argv) > 1 else 6)
