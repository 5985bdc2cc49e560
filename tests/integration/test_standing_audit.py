"""The standing audit as a process: beside the services, and never in their way."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from support.deployments import charged, finish, remove_from_sqlite
from support.ports import free_ports
from support.processes import PROGRAM, Pair, Process, Service, eventually


def watcher_of(parent: Process) -> int | None:
    """The process of the audit that `clinic run` has started; None while there is none."""
    for child in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split():
        with suppress(FileNotFoundError):
            if b"audit" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                return int(child)
    return None


async def ready(http: httpx.AsyncClient, *urls: str) -> None:
    async def are_ready() -> bool:
        with suppress(httpx.TransportError):
            return all([(await http.get(f"{url}/health/ready")).is_success for url in urls])
        return False

    await eventually(are_ready)


async def test_a_watcher_that_is_killed_comes_back_and_no_service_notices(
    command: Callable[..., Service], pair: Pair, http: httpx.AsyncClient
) -> None:
    (port,) = free_ports(1)
    both = command("run", CLINIC_AUDIT_EVERY="1s", CLINIC_AUDIT_PORT=str(port))
    audit = f"http://127.0.0.1:{port}"
    await both.started()
    await ready(http, pair.financial.url, audit)
    first = watcher_of(both)
    assert first

    os.kill(first, signal.SIGKILL)
    its_id = (await finish(http, pair))["id"]
    await charged(http, pair, {its_id})

    async def another() -> bool:
        return watcher_of(both) not in {None, first}

    await eventually(another)
    await ready(http, audit)
    assert "the audit ended (-9); starting it again" in both.complained
    assert await both.stopped() == 0


async def test_two_watchers_at_once_restore_one_charge(
    pair: Pair, processes: list[Process], http: httpx.AsyncClient
) -> None:
    await pair.started()
    its_id = (await finish(http, pair))["id"]
    await charged(http, pair, {its_id})
    remove_from_sqlite(pair, its_id)
    words = ("audit", "--every", "1s", "--grace", "0", "--repair")
    watchers = [
        Service(
            f"watcher {port}",
            (*PROGRAM, *words),
            pair.environment | {"CLINIC_AUDIT_PORT": str(port)},
            pair.folder,
            f"http://127.0.0.1:{port}",
        )
        for port in free_ports(2)
    ]
    processes += watchers
    for each in watchers:
        each.start()

    await charged(http, pair, {its_id})

    async def find_nothing() -> bool:
        findings: list[Any] = [(await http.get(f"{each.url}/findings/")).json()["items"] for each in watchers]
        return findings == [[], []]

    await ready(http, *(each.url for each in watchers))
    await eventually(find_nothing)
    assert [await each.stopped() for each in watchers] == [0, 0]
