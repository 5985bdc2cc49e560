"""What a running service writes: what matters to a person who watches, and never a body."""

import asyncio
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import httpx
import pytest
from support.processes import IN_A_TERMINAL, PROGRAM, Pair, Process, Service, eventually, nothing_answers


@pytest.mark.parametrize("shape", ["console", "json"])
async def test_the_body_of_a_client_that_leaves_is_never_written(
    command: Callable[..., Service], http: httpx.AsyncClient, shape: str
) -> None:
    service = command("run", "appointment", CLINIC_LOG_FORMAT=shape)
    await service.started()
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"

    for _ in range(5):
        service.hear_half(head + b'{"physician_id": "a-secret')
    await asyncio.gather(
        *(http.post(f"{service.url}/", json={"patient_id": "a-secret", "hush": "a-secret"}) for _ in range(5))
    )

    assert await service.stopped() == 0
    assert "a-secret" not in service.complained


async def test_each_step_of_an_appointment_is_one_line_with_its_id(
    pair: Pair, http: httpx.AsyncClient
) -> None:
    await pair.started()
    started = (
        await http.post(f"{pair.appointment.url}/", json={"physician_id": PERSON, "patient_id": PERSON})
    ).json()
    await http.post(f"{pair.appointment.url}/{started['id']}/")
    await http.get(f"{pair.financial.url}/{started['id']}/", headers={"Prefer": "wait=10"})

    async def both_told() -> bool:
        logs = pair.appointment.complained, pair.financial.complained
        return all(
            re.search(rf"{what}.*{started['id']}", log)
            for what, log in zip(("published", "charged"), logs, strict=True)
        )

    await eventually(both_told)
    assert PERSON not in pair.appointment.complained + pair.financial.complained


PERSON = "8c9b1b0e-5d3f-4c39-9a53-0b9d3b1f8f10"


async def finished_and_charged(pair: Pair, http: httpx.AsyncClient) -> None:
    """An appointment is finished with 200, and its charge arrives."""
    body = {"physician_id": PERSON, "patient_id": PERSON}
    started = (await http.post(f"{pair.appointment.url}/", json=body)).json()
    assert (await http.post(f"{pair.appointment.url}/{started['id']}/")).status_code == httpx.codes.OK
    charge = await http.get(f"{pair.financial.url}/{started['id']}/", headers={"Prefer": "wait=10"})
    assert charge.status_code == httpx.codes.OK


LOGS = {
    "cannot be written": ">/dev/full 2>&1",
    "is closed": ">&- 2>&-",
    "has lost its reader": "2>&1 | head -0; sleep 600",
}


@pytest.mark.parametrize("log", LOGS)
async def test_a_log_stops_nothing_that(
    log: str, pair: Pair, http: httpx.AsyncClient, processes: list[Process]
) -> None:
    shells = [
        Process(
            f"shell-{each.name}",
            ("sh", "-c", f"{shlex.join(each.command)} {LOGS[log]}"),
            pair.environment,
            pair.folder,
        )
        for each in pair.services
    ]
    processes += shells
    for shell in shells:
        shell.start()
    for service in pair.services:
        await eventually(partial(answers, http, service.url))
    for _ in range(3):
        await finished_and_charged(pair, http)


async def test_a_terminal_that_closes_stops_nothing_that_ignores_its_end(
    pair: Pair, http: httpx.AsyncClient, processes: list[Process]
) -> None:
    ignoring = f"trap '' HUP; echo $$ >pid; exec {shlex.join((*PROGRAM, 'run'))}"
    terminal = Process(
        "terminal",
        (sys.executable, "-c", IN_A_TERMINAL, "sh", "-c", ignoring),
        pair.environment,
        pair.folder,
    )
    processes.append(terminal)
    terminal.start(with_keys=True)
    for service in pair.services:
        await eventually(partial(answers, http, service.url))
    supervisor = int((pair.folder / "pid").read_text())
    try:
        terminal.kill()

        for _ in range(3):
            await finished_and_charged(pair, http)
        for service in pair.services:
            await eventually(partial(has_dropped_a_line, http, service.url))
    finally:
        os.kill(supervisor, signal.SIGTERM)
    await eventually(lambda: nothing_answers(pair))


async def has_dropped_a_line(http: httpx.AsyncClient, url: str) -> bool:
    shown = (await http.get(f"{url}/metrics")).text
    return re.search(r"^clinic_log_dropped_total(\{.*\})? [1-9]", shown, re.MULTILINE) is not None


async def answers(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(f"{url}/health/ready")).is_success
    except httpx.TransportError:
        return False


async def test_a_log_that_nobody_reads_stops_nothing_and_is_not_waited_for_at_the_end(
    pair: Pair, http: httpx.AsyncClient
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 1000)
    os.set_blocking(writing, True)
    running = [
        subprocess.Popen(  # noqa: ASYNC220 — starting it does not wait
            each.command,
            cwd=pair.folder,
            env=each.environment,
            stdout=writing,
            stderr=writing,
            start_new_session=True,
        )
        for each in pair.services
    ]
    try:
        for service in pair.services:
            await eventually(partial(answers, http, service.url))
        for _ in range(20):
            await finished_and_charged(pair, http)
        for service in pair.services:
            assert (await http.get(f"{service.url}/health/live")).is_success
        for each in running:
            each.terminate()
        for each in running:
            assert await asyncio.to_thread(each.wait, 10) == 0
    finally:
        for each in running:
            each.kill()
            each.wait()
        os.close(reading)
        os.close(writing)
