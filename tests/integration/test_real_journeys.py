"""What a person does over HTTP while MongoDB, Kafka and instances of the services come and go."""

import json
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import get_args

import httpx
import pytest
from confluent_kafka.admin import AdminClient
from support.deployments import (
    Outage,
    Server,
    another,
    breaches,
    busy,
    charged,
    finish,
    finish_many,
    on_real_servers,
    own_kafka,
    own_mongo,
    readiness,
    start,
    telemetry,
)
from support.ledger import History, due, kept, read
from support.processes import Pair, Process, eventually

PATIENCE = 1.0
"""CLINIC_MONGO_TIMEOUT, in seconds."""
ANSWERED_TIMEOUT = 3 * PATIENCE
BACK_TIMEOUT = 120
OUTAGES = get_args(Outage)


@pytest.fixture(scope="module")
def mongo_of_ours() -> Iterator[Server]:
    with own_mongo() as server:
        yield server


@pytest.fixture(scope="module")
def kafka_of_ours() -> Iterator[Server]:
    with own_kafka() as server:
        yield server


async def more_is_acknowledged(history: History, count: int, *, within: float = 20) -> None:
    wanted = len(history.finished) + count

    async def enough() -> bool:
        return len(history.finished) >= wanted

    await eventually(enough, within=within)


async def test_1000_finishes_while_the_financial_service_is_down_become_1000_charges(
    processes: list[Process], tmp_path: Path, mongo_replica_set: str, kafka: str, http: httpx.AsyncClient
) -> None:
    pair = on_real_servers(tmp_path, processes, mongo_replica_set, kafka)
    await pair.appointment.started()
    acknowledged = await finish_many(http, pair, 1000)

    await pair.financial.started()
    await charged(http, pair, {each["id"] for each in acknowledged})

    found = await kept(http, pair.appointment.url, pair.financial.url)
    assert len(found.charges) == 1000
    assert {each["appointment_id"]: each["total_price"] for each in found.charges} == {
        each["id"]: due(each) for each in acknowledged
    }


@pytest.mark.parametrize("how", OUTAGES)
async def test_finishes_are_acknowledged_without_the_broker_and_charged_when_it_is_back(
    how: Outage,
    processes: list[Process],
    tmp_path: Path,
    mongo_standalone: str,
    kafka_of_ours: Server,
    http: httpx.AsyncClient,
) -> None:
    pair = on_real_servers(tmp_path, processes, mongo_standalone, kafka_of_ours.address)
    await pair.started()
    before = await finish(http, pair)
    await charged(http, pair, {before["id"]})

    async def is_degraded() -> bool:
        found = await readiness(http, pair.appointment)
        return bool(
            found["status"] == "degraded"
            and found["checks"]["relay"] != "ok"
            and found["checks"]["store"] == "ok"
        )

    async with kafka_of_ours.away(how):
        meanwhile = await finish_many(http, pair, 100)
        await eventually(is_degraded)
        meanwhile += await finish_many(http, pair, 100)
    acknowledged = [before, *meanwhile]
    await charged(http, pair, {each["id"] for each in acknowledged}, within=BACK_TIMEOUT)

    found = await kept(http, pair.appointment.url, pair.financial.url)
    assert len(found.charges) == len(acknowledged)
    await pair.appointment.ready()
    assert {service.exit_code for service in pair.services} == {None}


@pytest.mark.parametrize("how", OUTAGES)
async def test_a_service_without_its_database_says_so_in_time_and_resumes_by_itself(
    how: Outage,
    processes: list[Process],
    tmp_path: Path,
    mongo_of_ours: Server,
    kafka: str,
    http: httpx.AsyncClient,
) -> None:
    pair = on_real_servers(
        tmp_path, processes, mongo_of_ours.address, kafka, CLINIC_MONGO_TIMEOUT=str(PATIENCE)
    )
    await pair.started()
    unfinished, history = await start(http, pair), History()
    requests = [
        ("POST", f"{pair.appointment.url}/{unfinished}/"),
        ("GET", f"{pair.appointment.url}/{unfinished}/"),
        ("GET", f"{pair.appointment.url}/"),
        ("GET", f"{pair.financial.url}/{unfinished}/"),
        ("GET", f"{pair.financial.url}/"),
    ]

    async with busy(http, [pair.services] * 6, history):
        await more_is_acknowledged(history, 50)
        async with mongo_of_ours.away(how):
            for method, url in requests:
                asked = monotonic()
                answer = await http.request(method, url)
                assert monotonic() - asked < ANSWERED_TIMEOUT, f"{method} {url}"
                assert (answer.status_code, answer.headers["content-type"]) == (
                    503,
                    "application/problem+json",
                ), answer.text
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.json()["status"] == 503
            for service in pair.services:
                assert (await readiness(http, service))["status"] == "unready"
        await more_is_acknowledged(history, 50, within=BACK_TIMEOUT)

    history.started[unfinished] = read(await http.get(f"{pair.appointment.url}/{unfinished}/")) | {
        "end_date": None
    }
    history.perhaps_finished.add(unfinished)
    assert await breaches(http, pair, history) == {}
    for service in pair.services:
        await service.ready()
    assert {service.exit_code for service in pair.services} == {None}


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_others_take_over_within_seconds_when_an_instance_is_killed_under_load(
    processes: list[Process],
    tmp_path: Path,
    mongo_replica_set: str,
    kafka: str,
    http: httpx.AsyncClient,
    protocol: str,
) -> None:
    pair = on_real_servers(tmp_path, processes, mongo_replica_set, kafka, CLINIC_KAFKA_PROTOCOL=protocol)
    appointments = [pair.appointment, another(pair, processes, "appointment", "appointment 2")]
    financials = [
        pair.financial,
        *(another(pair, processes, "financial", f"financial {number}") for number in (2, 3)),
    ]
    await pair.appointment.started()
    for service in (appointments[1], *financials):
        service.start()
    for service in (appointments[1], *financials):
        await service.ready()
    history, victims = History(), (appointments[1], financials[1])

    async def all_work() -> bool:
        return all([await telemetry(http, each, "charged") for each in financials])

    async with busy(http, [(appointments[number % 2], pair.financial) for number in range(8)], history):
        await eventually(all_work)
        await more_is_acknowledged(history, 100)
        for victim in victims:
            victim.kill()
        died, acknowledged = monotonic(), set(history.finished)
        await charged(http, pair, acknowledged, within=15)
        taken_over_after = monotonic() - died
        for victim in victims:
            await victim.started()
        await more_is_acknowledged(history, 100)

    assert await breaches(http, pair, history) == {}
    assert taken_over_after < 15


async def test_an_outage_of_the_database_longer_than_the_poll_interval_expels_nobody(
    processes: list[Process],
    tmp_path: Path,
    mongo_standalone: str,
    mongo_of_ours: Server,
    kafka: str,
    http: httpx.AsyncClient,
) -> None:
    options = json.dumps({"max.poll.interval.ms": "6000", "session.timeout.ms": "6000"})
    pair = on_real_servers(
        tmp_path,
        processes,
        mongo_standalone,
        kafka,
        CLINIC_MONGO_TIMEOUT=str(PATIENCE),
        CLINIC_KAFKA_OPTIONS=options,
    )
    pair.financial.environment["CLINIC_MONGO_URL"] = mongo_of_ours.address
    await pair.started()
    before = await finish(http, pair)
    await charged(http, pair, {before["id"]})
    (member,) = members(pair)

    async with mongo_of_ours.away("stopped"):
        acknowledged, began = await finish_many(http, pair, 20), monotonic()

        async def is_held_for_longer() -> bool:
            assert members(pair) == {member}
            return monotonic() - began > 1.5 * 6

        await eventually(is_held_for_longer, every=0.2)
        assert (await readiness(http, pair.financial))["checks"]["consumer"] != "ok"
    # Until then a list may be answered with 503, as it should.
    await pair.financial.ready(within=BACK_TIMEOUT)
    await charged(http, pair, {each["id"] for each in acknowledged}, within=BACK_TIMEOUT)

    assert members(pair) == {member}
    assert len((await kept(http, pair.appointment.url, pair.financial.url)).charges) == 21


def members(pair: Pair) -> set[str]:
    """Of the group, as the broker knows them."""
    admin = AdminClient({"bootstrap.servers": pair.environment["CLINIC_KAFKA_BOOTSTRAP_SERVERS"]})
    group = pair.environment["CLINIC_CONSUMER_GROUP"]
    return {each.member_id for each in admin.describe_consumer_groups([group])[group].result(10).members}
