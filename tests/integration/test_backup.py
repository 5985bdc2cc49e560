"""A backup that is taken while both services work, restored into an empty folder."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
from support.deployments import breaches, busy
from support.ledger import History, kept
from support.processes import PROGRAM, Pair, Process, eventually

IN_ORDER = ("events.financial.db", "appointment.db", "events.db", "financial.db")
"""As the README has it."""


def back_up(data: Path, copies: Path) -> None:
    copies.mkdir(parents=True)
    for name in IN_ORDER:
        with closing(sqlite3.connect(data / name)) as source, closing(sqlite3.connect(copies / name)) as copy:
            source.backup(copy)


async def test_what_is_in_a_backup_taken_under_load_is_charged_exactly_once(
    pair: Pair, processes: list[Process], http: httpx.AsyncClient, tmp_path: Path
) -> None:
    restored, history = Pair(tmp_path / "restored", {}), History()
    processes += restored.services
    await pair.started()
    async with busy(http, [pair.services] * 8, history):
        await finished(history, 200)
        await asyncio.to_thread(back_up, pair.data, restored.data)
        await finished(history, len(history.finished) + 100)
    for service in pair.services:
        assert await service.stopped() == 0

    await restored.started()

    # Nobody told this history of any; and what was finished while the copies were taken may be charged in a
    # later one.
    assert (await breaches(http, restored, History())).keys() == {"unfounded"}
    assert len(await finished_ids(http, restored)) >= 200
    audit = Process(
        "audit", (*PROGRAM, "audit", "--grace", "0", "--json"), restored.environment, restored.folder
    )
    processes.append(audit)
    audit.start()
    await audit.ended(within=60)
    *found, summary = map(json.loads, audit.printed.splitlines())
    assert {each["kind"] for each in found} <= {"orphaned"}
    assert summary["missing"] == 0


async def finished(history: History, count: int) -> None:
    async def are() -> bool:
        return len(history.finished) >= count

    await eventually(are, within=60)


async def finished_ids(http: httpx.AsyncClient, pair: Pair) -> set[str]:
    found = await kept(http, pair.appointment.url, pair.financial.url)
    return {each["id"] for each in found.appointments if each["end_date"] is not None}
