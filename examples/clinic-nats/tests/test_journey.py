"""Both services as two processes, found by the transport's name alone; the server is killed under them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from nats_server import NatsServer

PEOPLE = {"physician_id": str(uuid4()), "patient_id": str(uuid4())}


@contextmanager
def running(folder: Path, variables: Mapping[str, str], ports: list[int]) -> Iterator[None]:
    given = {"CLINIC_TRANSPORT": "nats", "CLINIC_DATA_DIR": str(folder), **variables}
    for context, port in zip(("APPOINTMENT", "FINANCIAL"), ports, strict=True):
        given[f"CLINIC_{context}_PORT"] = str(port)
    command = (sys.executable, "-m", "clinic", "run")
    process = subprocess.Popen(command, env=os.environ | given, cwd=folder)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def call(method: str, url: str, body: object = None, seconds: float = 30) -> Any:
    """Its answer, as soon as it gives one that is not a refusal."""
    give_up = time.monotonic() + seconds
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json", "Prefer": "wait=5"}
    while True:
        try:
            asked = urllib.request.Request(url, data if body else None, headers, method=method)
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return json.load(answer)
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)


def test_what_is_finished_while_the_server_is_away_is_charged_when_it_is_back(tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as one, socket.create_server(("", 0)) as other:
        ports = [each.getsockname()[1] for each in (one, other)]
    appointments, charges = (f"http://127.0.0.1:{port}" for port in ports)
    with NatsServer(tmp_path / "nats") as server, running(tmp_path, server.variables(), ports):
        ids = []
        for is_away in (False, True):
            started = call("POST", f"{appointments}/", PEOPLE)
            if is_away:
                server.kill()
            ids.append(call("POST", f"{appointments}/{started['id']}/")["id"])
            if is_away:
                server.start()
            assert call("GET", f"{charges}/{ids[-1]}/")["total_price"] == 200
        assert not list(tmp_path.glob("events*")), "the events went another way"
