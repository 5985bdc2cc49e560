"""The connection to MongoDB is cut after the server has applied a write: nobody is told what is not so, and
nothing is lost.
"""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pymongo
import pytest
from support.clients import Client
from support.deployments import breaches, charged, on_real_servers, start, telemetry
from support.ledger import History, due, kept, read
from support.processes import Pair, Process, eventually
from support.proxy import Proxy, proxied

Document = dict[str, Any]

INSERT = b"\x02insert\x00"
UPSERT = b"\x08upsert\x00\x01"
PULL = b"$pull\x00"
"""How a new appointment or charge, a saved appointment, and a confirmation look on the way to MongoDB."""
CUTS = {"mongo_standalone": 1, "mongo_replica_set": 2}
"""How often a write is cut until the driver gives up: it asks a replica set once more, which then knows what
it has done.
"""


@pytest.fixture(params=CUTS)
def mongo(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def cuts(request: pytest.FixtureRequest, mongo: str) -> int:  # noqa: ARG001 — asked for because it is a parameter's
    return CUTS[request.node.callspec.params["mongo"]]


@pytest.fixture
def proxy(mongo: str) -> Iterator[Proxy]:
    with proxied(mongo) as proxy:
        yield proxy


@pytest.fixture
async def pair(processes: list[Process], tmp_path: Path, proxy: Proxy, kafka: str) -> Pair:
    pair = on_real_servers(tmp_path, processes, proxy.url, kafka)
    await pair.started()
    return pair


@pytest.fixture
def documents(pair: Pair, mongo: str) -> Iterator[pymongo.collection.Collection[Document]]:
    """The appointments, seen past the proxy."""
    client: pymongo.MongoClient[Document]
    with pymongo.MongoClient(mongo, uuidRepresentation="standard") as client:
        yield client[pair.environment["CLINIC_MONGO_DATABASE"] + "_appointment"]["appointments"]


async def test_a_finish_whose_answer_was_lost_is_503_and_then_the_first_end_and_one_charge(
    pair: Pair,
    proxy: Proxy,
    cuts: int,
    documents: pymongo.collection.Collection[Document],
    http: httpx.AsyncClient,
) -> None:
    appointment_id = await start(http, pair)
    path = f"{pair.appointment.url}/{appointment_id}/"

    proxy.cut_after(UPSERT, cuts)
    unknown = await http.post(path)

    assert (unknown.status_code, unknown.headers["content-type"]) == (503, "application/problem+json")
    assert int(unknown.headers["retry-after"]) >= 1
    assert proxy.swallowed == cuts
    (kept_nevertheless,) = documents.find()
    acknowledged = [read((await http.post(path)).raise_for_status()) for _ in range(2)]
    assert acknowledged[0] == acknowledged[1]
    assert acknowledged[0]["end_date"].startswith(kept_nevertheless["end"].strftime("%Y-%m-%d %H:%M:%S"))
    await charged(http, pair, {appointment_id})
    (charge,) = (await kept(http, pair.appointment.url, pair.financial.url)).charges
    assert charge["total_price"] == due(acknowledged[0])
    assert await telemetry(http, pair.appointment, "published") == 1


async def test_a_finish_whose_answer_was_lost_is_charged_though_nobody_asks_again(
    pair: Pair, proxy: Proxy, cuts: int, http: httpx.AsyncClient
) -> None:
    appointment_id = await start(http, pair)

    proxy.cut_after(UPSERT, cuts)
    assert (await http.post(f"{pair.appointment.url}/{appointment_id}/")).status_code == 503

    await charged(http, pair, {appointment_id})


async def test_a_start_whose_answer_was_lost_is_503_and_kept_at_most_once(
    pair: Pair, proxy: Proxy, cuts: int, http: httpx.AsyncClient
) -> None:
    proxy.cut_after(INSERT, cuts)

    with pytest.raises(httpx.HTTPStatusError, match="503"):
        await start(http, pair)

    (found,) = (await kept(http, pair.appointment.url, pair.financial.url)).appointments
    assert found["end_date"] is None


async def test_a_charge_whose_answer_was_lost_is_there_once(
    pair: Pair, proxy: Proxy, cuts: int, http: httpx.AsyncClient
) -> None:
    appointment_id = await start(http, pair)
    with proxied(proxy.url) as to_charges:
        assert await pair.financial.stopped() == 0
        pair.financial.environment["CLINIC_MONGO_URL"] = to_charges.url
        await pair.financial.started()

        to_charges.cut_after(INSERT, cuts)
        acknowledged = read((await http.post(f"{pair.appointment.url}/{appointment_id}/")).raise_for_status())
        await charged(http, pair, {appointment_id})

        async def is_told_again() -> bool:
            return await telemetry(http, pair.financial, "already charged") == 1

        await eventually(is_told_again)
        (charge,) = (await kept(http, pair.appointment.url, pair.financial.url)).charges
        assert charge["total_price"] == due(acknowledged)
        assert to_charges.swallowed == cuts


async def test_a_confirmation_with_a_lost_answer_leaves_an_empty_outbox_and_one_charge(
    pair: Pair,
    proxy: Proxy,
    cuts: int,
    documents: pymongo.collection.Collection[Document],
    http: httpx.AsyncClient,
) -> None:
    appointment_id = await start(http, pair)

    proxy.cut_after(PULL, cuts)
    (await http.post(f"{pair.appointment.url}/{appointment_id}/")).raise_for_status()

    await charged(http, pair, {appointment_id})

    async def all_is_published() -> bool:
        return proxy.swallowed == cuts and documents.count_documents({"outbox": []}) == 1

    await eventually(all_is_published)
    await pair.appointment.ready()
    assert len((await kept(http, pair.appointment.url, pair.financial.url)).charges) == 1


async def test_under_load_no_cut_makes_a_false_promise(
    pair: Pair, proxy: Proxy, http: httpx.AsyncClient
) -> None:
    history, enough = History(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(6):
            client = Client(http, pair.appointment.url, pair.financial.url, history, random.Random(number))  # noqa: S311 — a seeded plan
            group.create_task(client.work(enough, []))
        try:
            for kind in (UPSERT, INSERT, PULL, UPSERT) * 2:
                before, finished = proxy.swallowed, len(history.finished)
                proxy.cut_after(kind, 2)

                async def went_on(before: int = before, finished: int = finished) -> bool:
                    return proxy.swallowed >= before + 2 and len(history.finished) > finished

                await eventually(went_on)
        finally:
            enough.set()

    assert await breaches(http, pair, history) == {}
    assert proxy.swallowed == 16
    assert history.count("unknown") > 0
