"""An end that loses nothing: SIGTERM, Ctrl-C, a second Ctrl-C."""

import asyncio
import os
import random
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from support.clients import Client
from support.ledger import History, compare, kept, shown_charges
from support.processes import IN_A_TERMINAL, PROGRAM, Pair, Process, Service, eventually, nothing_answers


async def waits(http: httpx.AsyncClient, url: str) -> "asyncio.Task[httpx.Response]":
    """A request that waits for a charge that will not come, heard by the service."""
    waiting = asyncio.create_task(http.get(f"{url}/{uuid4()}/", headers={"Prefer": "wait=30"}))
    await asyncio.sleep(
        0.2
    )  # nothing outside tells that it is heard; not yet heard, its connection would break
    return waiting


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_what_was_answered_under_load_is_true_after_the_end(
    pair: Pair, http: httpx.AsyncClient, number: signal.Signals
) -> None:
    history, enough = History(), asyncio.Event()
    await pair.started()
    urls = pair.appointment.url, pair.financial.url
    clients = [Client(http, *urls, history, random.Random(each)) for each in range(8)]  # noqa: S311 — a seeded plan
    at_work = [asyncio.create_task(client.work(enough, [])) for client in clients]

    async def is_under_load() -> bool:
        return len(history.finished) > 100

    await eventually(is_under_load)
    for service in pair.services:
        service.send(number)
    assert [await service.ended() for service in pair.services] == [0, 0]
    enough.set()
    await pair.started()
    await asyncio.gather(*at_work)

    async def all_charged() -> bool:
        found = await kept(http, *urls)
        return history.finished.keys() <= {each["appointment_id"] for each in found.charges}

    await eventually(all_charged)
    found = await kept(http, *urls)
    assert not compare(
        history, found, await shown_charges(http, pair.financial.url, list(history.started))
    ).breaches
    assert "Traceback" not in pair.appointment.complained + pair.financial.complained


async def test_a_wait_ends_at_once_with_503_when_the_service_is_asked_to_stop(
    pair: Pair, http: httpx.AsyncClient
) -> None:
    await pair.financial.started()
    waiting = [await waits(http, pair.financial.url) for _ in range(3)]

    assert await pair.financial.stopped() == 0

    for answer in await asyncio.gather(*waiting):
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"]


async def test_a_client_that_never_finishes_its_request_does_not_hold_up_the_end(pair: Pair) -> None:
    await pair.appointment.started()
    with half_a_request(pair.appointment.url):
        assert await pair.appointment.stopped() == 0


@pytest.mark.parametrize("service", ["appointment", "financial"])
async def test_a_service_that_stands_still_ends_within_its_time(pair: Pair, service: str) -> None:
    process = getattr(pair, service)
    await process.started()

    assert await process.stopped() == 0
    assert process.printed == ""
    assert "Traceback" not in process.complained


@pytest.fixture
async def both(command: Callable[..., Service], pair: Pair) -> Service:
    """`clinic run`, with both services ready."""
    made = command("run")
    await made.started()
    await _answers(pair.financial.url)
    return made


async def _answers(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:

        async def is_ready() -> bool:
            try:
                return (await http.get(f"{url}/health/ready")).is_success
            except httpx.TransportError:
                return False

        await eventually(is_ready)


async def _nothing_listens(pair: Pair) -> bool:
    async with httpx.AsyncClient(trust_env=False) as http:
        for service in pair.services:
            with pytest.raises(httpx.ConnectError):
                await http.get(f"{service.url}/health/live")
    return True


def children(pid: int) -> dict[str, int]:
    """The process ids of both services under a supervisor."""
    found = {}
    for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{each}/cmdline").read_bytes().split(b"\0")
        found[words[-2].decode()] = int(each)
    return found


async def test_run_prints_where_both_are_and_sigterm_ends_both(both: Service, pair: Pair) -> None:
    assert pair.appointment.url in both.printed
    assert pair.financial.url in both.printed

    assert await both.stopped() == 0

    assert await _nothing_listens(pair)
    assert "Traceback" not in both.complained


async def test_a_ctrl_c_that_reaches_the_whole_group_ends_both_gracefully(
    both: Service, pair: Pair, http: httpx.AsyncClient
) -> None:
    waiting = await waits(http, pair.financial.url)

    both.send_to_all(signal.SIGINT)

    assert await both.ended() == 0
    assert (await waiting).status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert await _nothing_listens(pair)
    assert "Traceback" not in both.complained
    assert "KeyboardInterrupt" not in both.complained


@pytest.fixture
async def in_a_terminal(processes: list[Process], pair: Pair) -> Process:
    """`clinic run` in the foreground of a terminal, with both services ready."""
    made = Process(
        "terminal", (sys.executable, "-c", IN_A_TERMINAL, *PROGRAM, "run"), pair.environment, pair.folder
    )
    processes.append(made)
    made.start(with_keys=True)
    for service in pair.services:
        await _answers(service.url)
    return made


async def test_ctrl_c_in_a_terminal_counts_once(
    in_a_terminal: Process, pair: Pair, http: httpx.AsyncClient
) -> None:
    waiting = await waits(http, pair.financial.url)

    in_a_terminal.press(b"\x03")

    assert await in_a_terminal.ended() == 0
    assert (await waiting).status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert await _nothing_listens(pair)
    assert "Traceback" not in in_a_terminal.printed


async def test_a_terminal_that_closes_ends_both_in_order(
    in_a_terminal: Process, pair: Pair, http: httpx.AsyncClient
) -> None:
    waiting = await waits(http, pair.financial.url)

    in_a_terminal.kill()

    assert (await waiting).status_code == httpx.codes.SERVICE_UNAVAILABLE
    await eventually(lambda: nothing_answers(pair))


@pytest.mark.parametrize("victim", ["appointment", "financial"])
async def test_when_one_is_killed_the_other_is_stopped_and_the_command_fails(
    both: Service, pair: Pair, victim: str
) -> None:
    os.kill(children(both.pid)[victim], signal.SIGKILL)

    assert await both.ended() == 1

    assert await _nothing_listens(pair)
    assert f"the {victim} service has ended" in both.complained
    assert "Traceback" not in both.complained


@asynccontextmanager
async def held_up(process: Process, url: str) -> AsyncIterator[None]:
    """It was asked to end, and a request that is never sent to its end holds it up."""
    with half_a_request(url):
        await asyncio.sleep(0.2)  # nothing outside tells that it is heard
        process.send_to_all(signal.SIGINT)
        await asyncio.sleep(0.5)
        assert process.exit_code is None, "nothing held it up"
        yield


@contextmanager
def half_a_request(url: str) -> Iterator[None]:
    """A request whose body does not come."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        yield


async def test_a_second_ctrl_c_is_immediate(pair: Pair) -> None:
    await pair.appointment.started()
    async with held_up(pair.appointment, pair.appointment.url):
        pair.appointment.send(signal.SIGINT)

        assert await pair.appointment.ended(within=2) == 130


async def test_a_second_ctrl_c_ends_both_at_once(both: Service, pair: Pair) -> None:
    async with held_up(both, pair.appointment.url):
        both.send_to_all(signal.SIGINT)

        assert await both.ended(within=2) != 0
    assert await _nothing_listens(pair)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_end_soon_after_the_start_leaves_nothing_running(
    command: Callable[..., Service], pair: Pair, number: signal.Signals
) -> None:
    for wait in (0.3, 0.4, 0.5, 0.6, 0.8):
        both = command("run", name=f"after {wait} s")
        both.start()
        await asyncio.sleep(wait)
        both.send_to_all(number)
        await both.ended()
        assert await _nothing_listens(pair)


@pytest.mark.parametrize("service", ["appointment", "financial"])
@pytest.mark.parametrize("server", ["store", "transport"])
async def test_a_start_that_waits_for_a_silent_server_ends_at_once(
    command: Callable[..., Service], service: str, server: str
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        silent.setblocking(False)
        address = "{}:{}".format(*silent.getsockname())
        urls = {"CLINIC_MONGO_URL": f"mongodb://{address}", "CLINIC_KAFKA_BOOTSTRAP_SERVERS": address}
        technology = {"store": "mongo", "transport": "kafka"}[server]
        process = command("run", service, **urls, **{f"CLINIC_{server.upper()}": technology})
        process.start()
        async with asyncio.timeout(20):
            connection, _ = await asyncio.get_running_loop().sock_accept(silent)
        with connection:
            process.send(signal.SIGTERM)
            assert await process.ended(within=3) == 0
    assert "Traceback" not in process.complained


async def test_the_demo_shows_its_steps_and_leaves_nothing_behind(
    command: Callable[..., Service], tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    demo = command("demo", TMPDIR=str(temporary))
    demo.start()

    assert await demo.ended(within=60) == 0

    steps = [
        "It starts",
        "Asked for once more",
        "It finishes",
        "Its charge has arrived",
        "total_price    200.00",
    ]
    places = [demo.printed.find(step) for step in steps]
    assert -1 not in places
    assert places == sorted(places)
    assert len(set(re.findall(r"^    id +(\S+)", demo.printed, re.MULTILINE))) == 1
    assert list(temporary.iterdir()) == []
    assert demo.complained == ""
