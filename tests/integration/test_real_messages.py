"""What foreign producers write to the topic, and what they read from it. They know CloudEvents 1.0, and
nothing of this code.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

import httpx
import pymongo
import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from kafka import KafkaConsumer, KafkaProducer  # type: ignore[import-untyped]
from support.deployments import charged, finish, on_real_servers, telemetry
from support.ledger import Json, due, kept
from support.processes import Pair, Process, eventually

FINISHED_V1 = "clinic.appointment.finished.v1"
KIB = 1024
MIB = 1024 * KIB
LARGEST = 4 * MIB

Headers = list[tuple[str, bytes | None]]


def finished_event(**changes: Any) -> Json:
    """An appointment is over."""
    default = {
        "appointment_id": str(uuid4()),
        "physician_id": str(uuid4()),
        "patient_id": str(uuid4()),
        "price": "133.33",
        "start": "2020-12-01T13:00:00Z",
        "end": "2020-12-01T15:30:00Z",
    }
    return default | changes


@dataclass
class Written:
    """What a foreign producer writes: the event in it, if one can be read, and where it went."""

    value: bytes | None
    headers: Headers = field(default_factory=list)
    key: bytes | None = None
    finished_event: Json | None = None
    position: str = ""

    def delivered(self, error: object, record: Message) -> None:
        assert error is None, error
        self.position = f"{record.topic()}/{record.partition()}/{record.offset()}"


def attributes(type_: str | None = FINISHED_V1) -> Headers:
    type_bytes = None if type_ is None else type_.encode()
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(uuid4()).encode()),
        ("ce_source", b"another/producer"),
        ("ce_type", type_bytes),
    ]


def binary(told: Json | None = None, headers: Headers | None = None) -> Written:
    told = told or finished_event()
    return Written(json.dumps(told).encode(), headers or attributes(), told["appointment_id"].encode(), told)


def structured(told: Json, data: Mapping[str, Any]) -> Written:
    event = {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "another/producer",
        "type": FINISHED_V1,
        **data,
    }
    headers: Headers = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
    return Written(json.dumps(event).encode(), headers, told["appointment_id"].encode(), told)


def write(kafka: str, topic: str, *all_of_it: Written) -> None:
    producer = Producer(
        {"bootstrap.servers": kafka, "message.max.bytes": LARGEST, "enable.idempotence": True}
    )
    for each in all_of_it:
        producer.produce(
            topic, key=each.key, value=each.value, headers=[*each.headers], on_delivery=each.delivered
        )
    assert producer.flush(20) == 0
    assert all(each.position for each in all_of_it)


@pytest.fixture
def pair(processes: list[Process], tmp_path: Path, mongo_standalone: str, kafka: str) -> Pair:
    """Their topic takes large messages; a test starts them."""
    pair = on_real_servers(tmp_path, processes, mongo_standalone, kafka)
    settings = {"retention.ms": "-1", "retention.bytes": "-1", "max.message.bytes": str(LARGEST)}
    topic = NewTopic(pair.environment["CLINIC_KAFKA_TOPIC"], 3, 1, config=settings)
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([topic])[topic.topic].result(20)
    return pair


@pytest.fixture
def topic(pair: Pair) -> str:
    return str(pair.environment["CLINIC_KAFKA_TOPIC"])


def dead_letters(pair: Pair) -> dict[str, Json]:
    client: pymongo.MongoClient[Json]
    with pymongo.MongoClient(pair.environment["CLINIC_MONGO_URL"]) as client:
        database: pymongo.database.Database[Json] = client[
            pair.environment["CLINIC_MONGO_DATABASE"] + "_financial"
        ]
        return {each["_id"]: each for each in database["dead_letters"].find()}


def unreadable() -> dict[str, Written]:
    """What cannot be read, by the reason that a person is told."""
    noise = bytes(range(256)) * 4
    return {
        "'clinic.appointment.finished.v2' is a version that is not known here": binary(
            headers=attributes("clinic.appointment.finished.v2")
        ),
        "the message names no event type": Written(noise, key=b"\xff\xfe"),
        "the message names no event type ": binary(headers=attributes(None)),
        "the message names no event type  ": Written(
            b"{", [("content-type", b"application/cloudevents+json")]
        ),
        "clinic.appointment.finished.v1 with data that cannot be read": Written(noise, attributes()),
        "clinic.appointment.finished.v1 with data that cannot be read ": Written(
            b"\x00" * (3 * MIB), attributes()
        ),
        "clinic.appointment.finished.v1 with data that cannot be read  ": binary(
            finished_event(price="a lot")
        ),
        "the appointment ends": binary(finished_event(end="2020-12-01T12:00:00Z")),
    }


def skipped() -> list[Written]:
    return [
        binary(headers=attributes("clinic.appointment.moved.v1")),
        Written(None, attributes(), key=b"a tombstone"),
        Written(None, key=b"a bare tombstone"),
    ]


def readable() -> list[Written]:
    """The events of ten appointments, that of one published three times."""
    thrice = binary()
    one = finished_event()
    other = finished_event()
    small = finished_event(note="x" * (900 * KIB))
    large = finished_event(note="x" * (3 * MIB))
    encoded = base64.b64encode(json.dumps(other).encode()).decode()
    late, early = finished_event(start="2020-12-01T16:00:00Z", end="2020-12-01T17:00:00Z"), finished_event()
    twice_said: Headers = [
        ("ce_type", b"something.else"),
        *attributes(),
        ("traceparent", None),
        ("traceparent", b"1"),
        ("ce_time", None),
    ]
    return [
        binary(),
        Written(thrice.value, thrice.headers, thrice.key, thrice.finished_event),
        Written(thrice.value, thrice.headers, thrice.key, thrice.finished_event),
        thrice,
        structured(one, {"data": one}),
        structured(other, {"data_base64": encoded}),
        binary(late),
        binary(early),
        binary(small),
        binary(large),
        binary(headers=twice_said),
        binary(),
    ]


async def test_unreadable_messages_are_dead_lettered_foreign_ones_skipped_others_charged(
    pair: Pair, topic: str, kafka: str, http: httpx.AsyncClient
) -> None:
    await pair.financial.started()
    bad = unreadable()
    other = skipped()
    good = readable()
    mixed = [each for group in zip(good, [*bad.values(), *other, binary()], strict=True) for each in group]
    told = {
        each.finished_event["appointment_id"]: each.finished_event
        for each in (*good, mixed[-1])
        if each.finished_event
    }

    write(kafka, topic, *mixed)
    await _charged(http, pair, set(told))

    async def all_is_counted() -> bool:
        seen = [
            await telemetry(http, pair.financial, what)
            for what in ("skipped", "dead-lettered", "already charged")
        ]
        return seen == [len(other), len(bad), 2]

    await eventually(all_is_counted)
    charges = await _charges(http, pair)
    assert {each["appointment_id"]: each["total_price"] for each in charges} == {
        id_: _due(each) for id_, each in told.items()
    }
    assert len(charges) == len(told)
    kept_at = dead_letters(pair)
    assert len({position.split("/")[1] for position in kept_at}) == 1, "one topic, one id"
    letters = {_without_the_topic_id(position): letter for position, letter in kept_at.items()}
    assert letters.keys() == {each.position for each in bad.values()}
    for reason, each in bad.items():
        letter, value = letters[each.position], each.value or b""
        assert reason.strip() in letter["reason"]
        assert (letter["length"], letter["sha256"]) == (len(value), hashlib.sha256(value).hexdigest())
        assert (letter["key"], letter["value"]) == (each.key, value[:MIB])
        assert [tuple(header) for header in letter["headers"]] == each.headers
    await pair.financial.ready()


def _without_the_topic_id(position: str) -> str:
    topic, _, partition, offset = position.split("/")
    return f"{topic}/{partition}/{offset}"


async def _charges(http: httpx.AsyncClient, pair: Pair) -> list[Json]:
    return (await kept(http, pair.financial.url, pair.financial.url)).charges


async def _charged(http: httpx.AsyncClient, pair: Pair, ids: set[str]) -> None:
    async def all_are() -> bool:
        return ids <= {each["appointment_id"] for each in await _charges(http, pair)}

    await eventually(all_are, every=0.1)


def _due(told: Json) -> Any:
    return due({"price": told["price"], "start_date": told["start"], "end_date": told["end"]})


@pytest.fixture
def by_hand(kafka: str) -> dict[str, Any]:
    """How a client of another make, that shares no code with ours, finds the broker."""
    return {"bootstrap_servers": kafka, "client_id": "another producer"}


async def test_another_client_library_reads_our_event(
    pair: Pair, topic: str, by_hand: dict[str, Any], http: httpx.AsyncClient
) -> None:
    await pair.started()
    http.headers["traceparent"] = parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    appointment = await finish(http, pair)
    await charged(http, pair, {appointment["id"]})

    with closing(
        KafkaConsumer(topic, auto_offset_reset="earliest", consumer_timeout_ms=20_000, **by_hand)
    ) as consumer:
        record = await asyncio.to_thread(next, consumer)

    start, end = (appointment[name].replace(" ", "T") + "Z" for name in ("start_date", "end_date"))
    assert record.key == appointment["id"].encode()
    headers = dict(record.headers)
    recorded = datetime.fromisoformat(headers["ce_recordedtime"].decode())
    assert timedelta(0) <= recorded - datetime.fromisoformat(end) < timedelta(seconds=60)
    assert list(record.headers) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(uuid5(UUID(appointment["id"]), FINISHED_V1)).encode()),
        ("ce_source", b"clinic/appointment"),
        ("ce_type", FINISHED_V1.encode()),
        ("ce_time", end.encode()),
        ("ce_subject", appointment["id"].encode()),
        ("ce_traceparent", parent.encode()),
        ("ce_recordedtime", headers["ce_recordedtime"]),
        ("traceparent", parent.encode()),
        ("content-type", b"application/json"),
    ]
    assert json.loads(record.value) == {
        "appointment_id": appointment["id"],
        "physician_id": appointment["physician_id"],
        "patient_id": appointment["patient_id"],
        "price": str(appointment["price"]),
        "start": start,
        "end": end,
    }


async def test_what_another_client_library_writes_is_charged(
    pair: Pair, topic: str, by_hand: dict[str, Any], http: httpx.AsyncClient
) -> None:
    await pair.started()
    told = finished_event()
    with closing(KafkaProducer(**by_hand)) as producer:
        sent = producer.send(
            topic, json.dumps(told).encode(), key=told["appointment_id"].encode(), headers=attributes()
        )
        await asyncio.to_thread(sent.get, 20)

    await _charged(http, pair, {told["appointment_id"]})

    (charge,) = await _charges(http, pair)
    assert charge["total_price"] == _due(told)
