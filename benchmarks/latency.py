# ruff: noqa: INP001 — a script's folder is no package
"""How long a finish takes to become a charge, over two processes at a steady rate, on SQLite or what the
settings name.

    .venv/bin/python benchmarks/latency.py [seconds] [finishes a second]

Each finish is sent at its own moment, whether or not the ones before were answered. A client then reads the
charge with
`Prefer: wait`; both times end when it has the charge in hand.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from uuid import uuid4

import httpx
from rich.console import Console

WARMING_UP = 100


class Client:
    """Connections that are kept open, spoken to in plain bytes: the client's own work is part of what is
    measured.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, line: str, header: str = "X: y") -> bytes:
        """The answer's head and body. Ends the program where it is no success."""
        connection = self._kept() or await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = connection
        writer.write(f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n{header}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        answer = head + await reader.readexactly(length)
        self._idle.append(connection)
        return answer if head.startswith(b"HTTP/1.1 200") else sys.exit(answer.decode())

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection[0].at_eof():  # else the server has closed what nobody used for long
                return connection
            connection[1].close()
        return None

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


async def measured(ports: Sequence[int], seconds: int, rate: int) -> list[tuple[float, float]]:
    """For each finish: seconds to its charge from its request, and from its answer."""
    ids = await _started(ports[0], WARMING_UP + seconds * rate)
    appointments, charges = (Client(port) for port in ports)

    async def finish(appointment_id: str) -> tuple[float, float]:
        sent = time.perf_counter()
        await appointments.ask(f"POST /{appointment_id}/")
        translate_errors = time.perf_counter()
        await charges.ask(f"GET /{appointment_id}/", "Prefer: wait=20")
        return time.perf_counter() - sent, time.perf_counter() - translate_errors

    began, under_way = time.perf_counter(), []
    for number, each in enumerate(ids):
        await asyncio.sleep(began + number / rate - time.perf_counter())
        under_way.append(asyncio.create_task(finish(each)))
    taken = await asyncio.gather(*under_way)
    for client in (appointments, charges):
        client.close()
    return taken[WARMING_UP:]


async def _started(port: int, count: int) -> list[str]:
    people = {"physician_id": str(uuid4()), "patient_id": str(uuid4())}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        return [(await http.post("/", json=people)).raise_for_status().json()["id"] for _ in range(count)]


def _services(stack: ExitStack) -> list[int]:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="clinic-benchmark-"))
    free = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [each.getsockname()[1] for each in free]
    for each in free:
        each.close()
    settings = {
        "CLINIC_DATA_DIR": folder,
        "CLINIC_APPOINTMENT_PORT": str(ports[0]),
        "CLINIC_FINANCIAL_PORT": str(ports[1]),
        "CLINIC_LOG_LEVEL": "warning",
    }
    for service, port in zip(("appointment", "financial"), ports, strict=True):
        process = subprocess.Popen(
            [sys.executable, "-m", "clinic", "run", service], env=os.environ | settings
        )
        stack.callback(process.wait, 15)
        stack.callback(process.terminate)
        _await_ready(process, port)
    return ports


def _await_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    give_up = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < give_up:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/ready", trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    sys.exit("a service did not start")


def main() -> None:
    """Measure, and print p50 and p99 of both times."""
    parser = argparse.ArgumentParser(description="Finish-to-charge latency over two processes.")
    parser.add_argument("seconds", nargs="?", type=int, default=20)
    parser.add_argument("rate", nargs="?", type=int, default=50, help="finishes a second")
    asked = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    with ExitStack() as stack:
        taken = asyncio.run(measured(_services(stack), asked.seconds, asked.rate))
    for what, times in zip(
        ("from the request to finish", "from its answer"), zip(*taken, strict=True), strict=True
    ):
        ordered = sorted(times)
        p50, p99 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.99))
        console.print(
            f"{what:<28} p50 {p50:6.2f} ms   p99 {p99:6.2f} ms   ({len(ordered)} finishes at {asked.rate}/s)"
        )


if __name__ == "__main__":
    main()
