"""`clinic audit` and `clinic trace` as processes of their own, beside services that run."""

import asyncio
import itertools
import json
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pymongo
import pytest
from confluent_kafka.admin import AdminClient
from support.deployments import (
    busy,
    charged,
    finish,
    finish_many,
    on_real_servers,
    readiness,
    remove_from_sqlite,
)
from support.ledger import History, due
from support.processes import PROGRAM, Pair, Process, eventually

GRACE = "5"
"""Seconds, far below the usual: a false alarm would be seen."""

Remove = Callable[[Pair, str], None]


class Stack:
    """Both services on one kind of store, and how a person removes a charge there by hand."""

    def __init__(self, pair: Pair, processes: list[Process], remove: Remove) -> None:
        self.pair = pair
        self._processes = processes
        self._remove = remove
        self._numbers = itertools.count(1)

    def remove_charge(self, appointment_id: str) -> None:
        self._remove(self.pair, appointment_id)

    async def command(self, *words: str) -> tuple[int, list[Any]]:
        """Its exit code, and the lines that it prints for a machine."""
        name = f"{words[0]} {next(self._numbers)}"
        process = Process(name, (*PROGRAM, *words, "--json"), self.pair.environment, self.pair.folder)
        self._processes.append(process)
        process.start()
        code = await process.ended(within=60)
        assert process.complained == ""
        return code, [json.loads(line, parse_float=Decimal) for line in process.printed.splitlines()]

    async def audit(self, *words: str) -> tuple[int, list[Any], Any]:
        """Its exit code, what it found, and its summary."""
        code, (*found, summary) = await self.command("audit", *words)
        return code, found, summary


def remove_from_mongo(pair: Pair, appointment_id: str) -> None:
    client: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient(pair.environment["CLINIC_MONGO_URL"], uuidRepresentation="standard") as client:
        kept: Any = client[f"{pair.environment['CLINIC_MONGO_DATABASE']}_financial"]
        assert kept["charges"].delete_one({"_id": UUID(appointment_id)}).deleted_count == 1


@pytest.fixture(params=["sqlite", "mongo and kafka"])
def stack(request: pytest.FixtureRequest, processes: list[Process], tmp_path: Path) -> Stack:
    if request.param == "sqlite":
        return Stack(request.getfixturevalue("pair"), processes, remove_from_sqlite)
    mongo, kafka = request.getfixturevalue("mongo_replica_set"), request.getfixturevalue("kafka")
    return Stack(on_real_servers(tmp_path, processes, mongo, kafka), processes, remove_from_mongo)


async def test_a_charge_that_was_removed_by_hand_is_found_and_restored_beside_the_services(
    stack: Stack, http: httpx.AsyncClient
) -> None:
    await stack.pair.started()
    acknowledged = {each["id"]: each for each in await finish_many(http, stack.pair, 20)}
    await charged(http, stack.pair, set(acknowledged))
    removed = random.Random(3).choice(sorted(acknowledged))  # noqa: S311 — a seeded plan

    stack.remove_charge(removed)

    async def is_found() -> list[Any]:
        return (await stack.audit("--grace", "0"))[
            1
        ]  # its end is cut to the second: for that long it is in flight

    (found,) = await eventually(is_found)
    assert (found["kind"], found["appointment_id"], found["expected"]) == (
        "missing",
        removed,
        due(acknowledged[removed]),
    )
    code, (mended,), summary = await stack.audit("--grace", "0", "--repair", "--wait", "30")
    assert (code, mended["outcome"], mended["charged"]) == (0, "charged", due(acknowledged[removed]))
    assert (summary["missing"], summary["remaining"]) == (1, 0)
    assert await stack.audit("--grace", "0") == (
        0,
        [],
        {**summary, "missing": 0, "charged": 0, "compared": 20},
    )


async def test_an_audit_beside_a_busy_clinic_raises_no_false_alarm(
    stack: Stack, http: httpx.AsyncClient
) -> None:
    await stack.pair.started()
    history = History()
    await charged(http, stack.pair, {(await finish(http, stack.pair))["id"]})

    async with busy(http, [stack.pair.services] * 8, history):
        audits = [await stack.audit("--grace", GRACE) for _ in range(5)]

    assert [(code, found) for code, found, _ in audits] == [(0, [])] * len(audits)
    assert audits[0][2]["compared"] < audits[-1][2]["compared"]
    assert len(history.finished) > 100


async def test_a_repair_beside_a_busy_clinic_mends_what_was_removed_and_nothing_else(
    stack: Stack, http: httpx.AsyncClient
) -> None:
    await stack.pair.started()
    acknowledged = {each["id"]: each for each in await finish_many(http, stack.pair, 30)}
    await charged(http, stack.pair, set(acknowledged))
    removed = sorted(acknowledged)[::3]

    async with busy(http, [stack.pair.services] * 8, History()):
        for each in removed:
            stack.remove_charge(each)

        async def all_are_found() -> bool:
            return len((await stack.audit("--grace", GRACE))[1]) == len(removed)

        await eventually(all_are_found, within=60)
        code, mended, _ = await stack.audit("--grace", GRACE, "--repair", "--wait", "30")

    assert (code, {each["appointment_id"]: each["charged"] for each in mended}) == (
        0,
        {each: due(acknowledged[each]) for each in removed},
    )


async def test_without_the_financial_service_the_trace_and_a_repair_say_what_is_waited_for(
    stack: Stack, http: httpx.AsyncClient
) -> None:
    await stack.pair.started()
    assert await stack.pair.financial.stopped() == 0
    waiting = (await finish(http, stack.pair))["id"]

    async def is_published() -> bool:
        _, (traced,) = await stack.command("trace", waiting)
        return bool(traced["waits_for"] == "to be received")

    await eventually(is_published)
    await eventually(lambda: _is_missing(stack))
    code, (repaired,), summary = await stack.audit("--grace", "0", "--repair", "--wait", "3")
    assert (code, repaired["outcome"], summary["remaining"]) == (3, "republished", 1)
    assert "not charged yet" in repaired["outcome_explanation"]

    await stack.pair.financial.started()
    await charged(http, stack.pair, {waiting})
    _, (traced,) = await stack.command("trace", waiting)
    steps = [each["event"] for each in traced["steps"]]
    assert (traced["waits_for"], traced["unreadable"]) == ("nothing", {})
    assert {"started", "finished", "saved", "published", "received", "charged"} == set(steps)
    assert all(each.get("waited_seconds", 0) >= 0 for each in traced["steps"])


async def test_what_was_in_a_deleted_topic_is_found_and_published_again(
    processes: list[Process], tmp_path: Path, mongo_replica_set: str, kafka: str, http: httpx.AsyncClient
) -> None:
    pair = on_real_servers(tmp_path, processes, mongo_replica_set, kafka)
    stack = Stack(pair, processes, remove_from_mongo)
    await pair.started()
    await charged(http, pair, {(await finish(http, pair))["id"]})
    assert await pair.financial.stopped() == 0
    lost = {each["id"]: each for each in await finish_many(http, pair, 5)}

    async def all_are_published() -> bool:
        return "oldest_unpublished_seconds" not in await readiness(http, pair.appointment)

    await eventually(all_are_published)
    topic = pair.environment["CLINIC_KAFKA_TOPIC"]
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    await asyncio.to_thread(admin.delete_topics([topic])[topic].result)
    await pair.financial.started()

    async def all_are_found() -> bool:
        return len((await stack.audit("--grace", "0"))[1]) == len(lost)

    await eventually(all_are_found)
    code, mended, summary = await stack.audit("--grace", "0", "--repair", "--wait", "30")
    assert (code, summary["remaining"]) == (0, 0)
    assert {each["appointment_id"]: each["charged"] for each in mended} == {
        id_: due(appointment) for id_, appointment in lost.items()
    }


async def _is_missing(stack: Stack) -> bool:
    return (await stack.audit("--grace", "0"))[0] == 3
