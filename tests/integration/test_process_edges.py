"""Where a process is easily wrong at its edge: each of these once was."""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest
from support.processes import PROGRAM, Pair, Process, Service, eventually, nothing_answers


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


@pytest.mark.parametrize("output", [">/dev/full", "2>/dev/full", ">/dev/full 2>&1", "| head -0", ">&-"])
async def test_run_with_a_broken_output_serves_and_leaves_nothing_behind(
    output: str, pair: Pair, processes: list[Process]
) -> None:
    shell = Process(
        "shell",
        ("sh", "-c", f"echo $$ >pid; {shlex.join((*PROGRAM, 'run'))} {output}"),
        pair.environment,
        pair.folder,
    )
    processes.append(shell)
    shell.start()
    await both_answer(pair)
    (supervisor,) = [pid for pid in session(shell.pid) if command_of(pid)[-3:] == ["-m", "clinic", "run"]]

    os.kill(supervisor, signal.SIGTERM)

    await eventually(lambda: nothing_answers(pair), within=10)


async def test_a_killed_run_leaves_nothing_behind_and_can_be_started_again(
    command: Callable[..., Service], pair: Pair
) -> None:
    for wait in (0.15, 0.3, 0.6, None):
        both = command("run", name=f"killed after {wait}")
        both.start()
        if wait is None:
            await both_answer(pair)
        else:
            await asyncio.sleep(wait)
        members = session(both.pid)

        both.kill()

        async def all_have_ended(members: list[int] = members) -> bool:
            return not any(is_running(pid) for pid in members)

        await eventually(all_have_ended, within=10)
    again = command("run", name="again")
    again.start()
    await both_answer(pair)
    assert await again.stopped() == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_demo_that_is_ended_leaves_nothing_behind(
    number: signal.Signals, command: Callable[..., Service], tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    demo = command("demo", TMPDIR=str(temporary))
    demo.start()

    async def a_service_has_begun() -> bool:
        return any(temporary.glob("*/*.db"))

    await eventually(a_service_has_begun)
    members = session(demo.pid)
    demo.send(number)

    async def nothing_is_left() -> bool:
        return not any(is_running(pid) for pid in members) and not any(temporary.iterdir())

    ended = await demo.ended()
    if number == signal.SIGTERM:
        assert (ended, await nothing_is_left()) == (128 + signal.SIGTERM, True)
    await eventually(nothing_is_left, within=15)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("arguments", [("run",), ("run", "appointment"), ("run", "--in-process")])
async def test_a_signal_that_its_starter_ignores_is_ignored(
    number: signal.Signals, arguments: tuple[str, ...], pair: Pair, processes: list[Process]
) -> None:
    ignore = f"import os, sys, signal as s; s.signal({int(number)}, s.SIG_IGN)"
    ignoring = f"{ignore}; os.execv(sys.argv[1], sys.argv[1:])"
    process = Service(
        "ignoring",
        (sys.executable, "-c", ignoring, *PROGRAM, *arguments),
        pair.environment,
        pair.folder,
        pair.appointment.url,
    )
    processes.append(process)
    await process.started()

    for pid in session(process.pid):
        os.kill(pid, number)
    await asyncio.sleep(0.5)  # nothing outside tells that it was ignored
    await process.ready()
    assert await process.stopped() == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
async def test_a_signal_that_is_not_ignored_ends_a_service_in_order(
    pair: Pair, number: signal.Signals
) -> None:
    await pair.appointment.started()
    pair.appointment.send(number)
    assert await pair.appointment.ended() == 0


@pytest.mark.parametrize("name", ["appointment.db", "financial.db", "events.db"])
async def test_a_file_moved_beneath_the_services_is_seen_until_it_is_back(
    name: str, pair: Pair, http: httpx.AsyncClient
) -> None:
    await pair.started()
    body = {"physician_id": PERSON, "patient_id": PERSON}
    its_id = (await http.post(f"{pair.appointment.url}/", json=body)).json()["id"]
    needs_it = [each for each in pair.services if name in ("events.db", f"{each.name}.db")]

    (pair.data / name).rename(pair.folder / name)

    answered = await http.post(f"{pair.appointment.url}/{its_id}/")
    is_saved = name != "appointment.db"
    assert answered.status_code == (httpx.codes.OK if is_saved else httpx.codes.SERVICE_UNAVAILABLE)
    for each in needs_it:
        assert name in await eventually(partial(complaint, http, each.url))

    (pair.folder / name).rename(pair.data / name)

    await both_answer(pair)
    if not is_saved:
        assert (await http.post(f"{pair.appointment.url}/{its_id}/")).status_code == httpx.codes.OK
    charge = await http.get(f"{pair.financial.url}/{its_id}/", headers={"Prefer": "wait=20"})
    assert charge.status_code == httpx.codes.OK
    assert await pair.appointment.stopped() == await pair.financial.stopped() == 0


PERSON = "8c9b1b0e-5d3f-4c39-9a53-0b9d3b1f8f10"


async def complaint(http: httpx.AsyncClient, url: str) -> str:
    """What its readiness says, where not all is well."""
    answer = await http.get(f"{url}/health/ready")
    return "" if answer.json()["status"] == "ready" else answer.text


BROKEN = """
import sys
from dependency_injector.providers import Callable
from clinic.entrypoints.cli.main import main
from clinic.entrypoints.containers import AppointmentContainer
def make(): raise TypeError("no such option")
getattr(AppointmentContainer, sys.argv.pop(1)).override(Callable(make))
sys.exit(main())
"""


@pytest.mark.parametrize("provider", ["appointments", "relay", "publisher", "resources", "telemetry"])
async def test_a_provider_that_cannot_be_made_names_its_cause_in_one_line(
    provider: str, pair: Pair, processes: list[Process]
) -> None:
    command = (sys.executable, "-c", BROKEN, provider, "run", "appointment")
    process = Process("broken", command, pair.environment, pair.folder)
    processes.append(process)
    process.start()

    assert await process.ended() == 1

    assert process.complained.splitlines()[-1] == "clinic: the service ended: TypeError: no such option"
    assert process.complained.count("Traceback") <= 1


def session(pid: int) -> list[int]:
    """The processes of its session."""
    found = []
    for each in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = each.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == pid:
            found.append(int(each.parent.name))
    return found


def command_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def both_answer(pair: Pair) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        for service in pair.services:

            async def is_ready(url: str = service.url) -> bool:
                try:
                    return (await http.get(f"{url}/health/ready")).is_success
                except httpx.TransportError:
                    return False

            await eventually(is_ready)
