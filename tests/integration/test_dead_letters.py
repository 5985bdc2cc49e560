"""Dead letters of real services: mended from the command line and over HTTP while the services run."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from confluent_kafka import Message as Record
from confluent_kafka import Producer
from msgspec.structs import replace
from support.deployments import on_real_servers, telemetry
from support.ledger import Json, kept
from support.mongo import mongo_dead_letters
from support.processes import PROGRAM, Pair, Process, Service, eventually

from clinic.adapters import cloudevents
from clinic.adapters.sqlite.file import SqliteFile, scripts
from clinic.adapters.sqlite.transport import SqlitePublisher
from clinic.domain.events import to_message
from clinic.domain.messaging.dead_letters import DeadLetter, group_of
from clinic.domain.messaging.messages import Message
from clinic.testing.builders import a_letter, a_message, an_event, now, opened

TOKEN = uuid4().hex
UNKNOWN = "clinic.appointment.finished.v2"
COUNT = 60


async def clinic(
    pair: Pair, processes: list[Process], *words: str, name: str = "clinic"
) -> tuple[int, list[Json]]:
    """The exit code of the command, and each document that it wrote."""
    process = Process(name, (*PROGRAM, "dead-letters", *words, "--json"), pair.environment, pair.folder)
    processes.append(process)
    before = len(process.printed)
    process.start()
    code = await process.ended(within=60)
    return code, [json.loads(line) for line in process.printed[before:].splitlines()]


async def test_dead_letters_are_found_replayed_and_discarded_beside_the_running_service(
    pair: Pair, processes: list[Process], http: httpx.AsyncClient
) -> None:
    pair.financial.environment["CLINIC_OPERATOR_TOKEN"] = TOKEN
    async with opened(
        SqlitePublisher(SqliteFile(pair.data / "events.db", *scripts("events")), now)
    ) as publisher:
        published = await publisher.publish([a_message(type=UNKNOWN), a_message(), a_message(type=UNKNOWN)])
    await pair.financial.started()
    await eventually(lambda: all_are_set_aside(http, pair.financial, 2))

    code, (listed,) = await clinic(pair, processes, "list")
    assert code == 0
    assert [each["position"] for each in listed["items"]] == [published[0].position, published[2].position]
    (group,) = listed["groups"]
    assert (group["waiting"], group["group"]) == (2, group_of("type-unknown", UNKNOWN))

    code, outcomes = await clinic(pair, processes, "replay", "--group", group["group"], "--by", "anna")
    assert (code, [each["outcome"] for each in outcomes]) == (3, ["failed again"] * 2)
    assert (
        await clinic(pair, processes, "discard", published[0].position, "--reason", "a test", "--by", "bob")
    )[0] == 0

    http.headers["Authorization"] = f"Bearer {TOKEN}"
    url = f"{pair.financial.url}/dead-letters"
    shown = (await http.get(f"{url}/{published[0].position}")).json()
    assert [(each["event"], each["by"]) for each in shown["history"]] == [
        ("failed again", "anna"),
        ("discarded", "bob"),
    ]
    assert [each["position"] for each in (await http.get(f"{url}/?state=waiting")).json()["items"]] == [
        published[2].position
    ]
    answer = await http.post(f"{url}/discard/", json={"by": "carol", "all": True, "reason": "a test"})
    assert [each["outcome"] for each in answer.json()["items"]] == ["discarded"]
    assert (await clinic(pair, processes, "list"))[1][0]["items"] == []
    assert await pair.financial.stopped() == 0
    assert TOKEN not in pair.financial.complained + pair.financial.printed


async def all_are_set_aside(http: httpx.AsyncClient, service: Service, count: int) -> bool:
    return await telemetry(http, service, "dead-lettered") == count


@pytest.fixture
def on_servers(processes: list[Process], tmp_path: Path, mongo_standalone: str, kafka: str) -> Pair:
    return on_real_servers(tmp_path, processes, mongo_standalone, kafka, CLINIC_OPERATOR_TOKEN=TOKEN)


async def test_two_replays_while_the_messages_arrive_again_charge_each_appointment_once(
    on_servers: Pair, processes: list[Process], http: httpx.AsyncClient
) -> None:
    pair, messages = on_servers, [to_message(an_event()) for _ in range(COUNT)]
    positions = write(
        pair.environment["CLINIC_KAFKA_BOOTSTRAP_SERVERS"], pair.environment["CLINIC_KAFKA_TOPIC"], messages
    )
    await set_aside_before(
        pair, [_letter(message, position) for message, position in zip(messages, positions, strict=True)]
    )

    pair.financial.start()
    at_once = [
        clinic(pair, processes, "replay", "--all", "--by", name, name=name) for name in ("anna", "bob")
    ]
    replays = await asyncio.gather(*at_once)
    await pair.financial.ready()

    async def all_have_arrived() -> bool:
        counts = [await telemetry(http, pair.financial, event) for event in ("charged", "already charged")]
        return sum(counts) >= COUNT

    await eventually(all_have_arrived, within=60)
    charges = (await kept(http, pair.financial.url, pair.financial.url)).charges
    assert sorted(each["appointment_id"] for each in charges) == sorted(
        message.subject for message in messages
    )
    assert {str(each["total_price"]) for each in charges} == {"400.00"}
    assert await telemetry(http, pair.financial, "differs from its charge") == 0
    assert [code for code, _ in replays] == [0, 0]
    await _are_replayed_once(http, pair, positions, [each for _, outcomes in replays for each in outcomes])


async def _are_replayed_once(
    http: httpx.AsyncClient, pair: Pair, positions: list[str], outcomes: list[Json]
) -> None:
    """Each letter was noted by one of them; the other never found it waiting, or heard who was quicker."""
    noted = Counter(
        each["position"] for each in outcomes if each["outcome"] in {"charged", "already charged"}
    )
    assert noted == Counter(positions)
    assert {each["outcome"] for each in outcomes} <= {"charged", "already charged", "handled already"}
    for position in positions:
        answer = await http.get(
            f"{pair.financial.url}/dead-letters/{position}", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        shown: Any = answer.raise_for_status().json()
        assert (shown["state"], [each["event"] for each in shown["history"]]) == ("replayed", ["replayed"])


def write(kafka: str, topic: str, messages: list[Message]) -> list[str]:
    """Where each went."""
    producer = Producer({"bootstrap.servers": kafka})
    positions: dict[bytes, str] = {}

    def delivered(error: object, record: Record) -> None:
        assert error is None, error
        positions[record.key() or b""] = f"{record.topic()}/{record.partition()}/{record.offset()}"

    for each in messages:
        producer.produce(
            topic,
            key=each.key.encode(),
            value=each.data,
            headers=[*cloudevents.headers(each)],
            on_delivery=delivered,
        )
    assert producer.flush(30) == 0
    return [positions[each.key.encode()] for each in messages]


async def set_aside_before(pair: Pair, letters: list[DeadLetter]) -> None:
    """An older version could not read them."""
    name = pair.environment["CLINIC_MONGO_DATABASE"] + "_financial"
    async with mongo_dead_letters(pair.environment["CLINIC_MONGO_URL"], name) as store:
        await store.add(letters)


def _letter(message: Message, position: str) -> DeadLetter:
    value = message.data or b""
    return replace(
        a_letter(),
        position=position,
        about=message.subject,
        key=message.key.encode(),
        headers=tuple(cloudevents.headers(message)),
        value=value,
        length=len(value),
    )
