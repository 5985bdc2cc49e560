"""Where a process is easily wrong at its edge: each of these once was."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable

from support.processes import PROGRAM, Pair, Service


async def test_one_port_for_both_in_one_process_is_a_port_in_use(
    command: Callable[..., Service], pair: Pair
) -> None:
    port = pair.environment["CLINIC_APPOINTMENT_PORT"]
    both = command("run", "--in-process", CLINIC_FINANCIAL_PORT=port)
    both.start()

    assert await both.ended() == 1

    (line,) = both.complained.splitlines()
    assert f"127.0.0.1:{port} cannot be used" in line


async def test_one_port_for_both_is_a_port_in_use(command: Callable[..., Service], pair: Pair) -> None:
    port = pair.environment["CLINIC_APPOINTMENT_PORT"]
    both = command("run", CLINIC_FINANCIAL_PORT=port)
    both.start()

    assert await both.ended() == 1

    assert f"127.0.0.1:{port} cannot be used" in both.complained
    assert "Traceback" not in both.complained


async def test_a_client_that_leaves_is_no_failure(pair: Pair) -> None:
    await pair.appointment.started()
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    for _ in range(5):
        pair.appointment.hear_half(head + b'{"physician_id": "')

    assert await pair.appointment.stopped() == 0
    assert "Traceback" not in pair.appointment.complained
    assert "unforeseen" not in pair.appointment.complained


async def test_a_ctrl_c_while_both_start_shows_no_traceback(command: Callable[..., Service]) -> None:
    for wait in (0.35, 0.45, 0.6):
        both = command("run", name=f"after {wait} s")
        both.start()
        await asyncio.sleep(wait)
        both.send_to_all(signal.SIGINT)
        await both.ended()
        assert "Traceback" not in both.complained


async def test_who_stops_reading_what_a_command_prints_is_shown_no_traceback(pair: Pair) -> None:
    await pair.started()
    reading, writing = os.pipe()
    os.close(reading)
    command = (*PROGRAM, "audit", "--json")
    ended = await asyncio.to_thread(
        subprocess.run,
        command,
        env=os.environ | pair.environment,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")
