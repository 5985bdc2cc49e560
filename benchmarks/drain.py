# ruff: noqa: INP001 — a script's folder is no package
"""How fast the financial service drains a backlog from Kafka into MongoDB, against a bare loop of the two
drivers.

    CLINIC_MONGO_URL=… CLINIC_KAFKA_BOOTSTRAP_SERVERS=… .venv/bin/python benchmarks/drain.py [events]

In turn A, B, A: A is the consumer as it runs in the service, B consumes the same events and calls insert_many
with the same documents.
"""

import asyncio
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pymongo
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from confluent_kafka import Consumer
from dependency_injector.providers import Object
from msgspec.structs import replace
from rich.console import Console

from clinic.adapters.kafka.member import BATCH_SIZE
from clinic.domain.events import AppointmentFinished, to_message
from clinic.domain.messaging.ports import Telemetry
from clinic.domain.money import Money
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.settings import Settings, load

START, END = datetime(2020, 12, 1, 13, tzinfo=UTC), datetime(2020, 12, 1, 14, tzinfo=UTC)


class Silent(Telemetry):
    """Nobody watches."""

    def __call__(self, what: str, /, **details: object) -> None:  # noqa: ARG002 — the port's signature
        return


def an_event() -> AppointmentFinished:
    return AppointmentFinished(
        appointment_id=uuid4(),
        physician_id=uuid4(),
        patient_id=uuid4(),
        price=Money("200.00"),
        start=START,
        end=END,
    )


async def fill(settings: Settings, events: int) -> None:
    publisher = AppointmentContainer(settings=settings, telemetry=Object(Silent())).publisher()
    await publisher.open()
    for _ in range(events // BATCH_SIZE):
        await publisher.publish([to_message(an_event()) for _ in range(BATCH_SIZE)])
    await publisher.close()


async def drained(settings: Settings, events: int) -> float:
    """Events a second, by the consumer of the service, on a database and with a group of its own."""
    run = uuid4().hex[:8]
    own = replace(settings, mongo_database=f"drain-{run}", consumer_group=run)
    container = FinancialContainer(settings=own, telemetry=Object(Silent()))
    opened = container.resources()
    for each in opened:
        await each.open()
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(own.mongo_url)
    charges = client[f"{own.mongo_database}_financial"]["charges"]
    consuming = asyncio.create_task(container.consumer().run())
    while not await asyncio.to_thread(charges.estimated_document_count):  # noqa: ASYNC110 — another client's count is all there is
        await asyncio.sleep(0.01)
    began, before = time.perf_counter(), await asyncio.to_thread(charges.estimated_document_count)
    while await asyncio.to_thread(charges.estimated_document_count) < events:  # noqa: ASYNC110 — the same
        await asyncio.sleep(0.05)
    rate = (events - before) / (time.perf_counter() - began)
    consuming.cancel()
    await asyncio.wait([consuming])
    for each in opened:
        await each.close()
    client.close()
    return rate


def bare(settings: Settings, events: int) -> float:
    """Events a second, by consume and insert_many: documents as the service makes them, indexes too, nothing
    is decided.
    """
    run = uuid4().hex[:8]
    options: CodecOptions[dict[str, Any]] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
        settings.mongo_url, w="majority", journal=True
    )
    kept = client[f"bare-{run}"].get_collection("charges", codec_options=options)
    for index in (
        ["charged_at", "_id"],
        ["physician_id", "charged_at", "_id"],
        ["patient_id", "charged_at", "_id"],
    ):
        kept.create_index([(name, 1) for name in index])
    usual = next(iter(client[_a_database(client)]["charges"].find().limit(1)))
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "group.id": run,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([settings.kafka_topic])
    began, seen = 0.0, 0
    while seen < events:
        records = consumer.consume(BATCH_SIZE, 0.1)
        if not records:
            continue
        began = began or time.perf_counter()
        ids = [uuid4() for _ in records]
        kept.insert_many(
            [{**usual, "_id": id_, "physician_id": id_, "patient_id": id_} for id_ in ids], ordered=False
        )
        consumer.commit(asynchronous=False)
        seen += len(records)
    rate = seen / (time.perf_counter() - began)
    consumer.close()
    client.close()
    return rate


def _a_database(client: "pymongo.MongoClient[dict[str, Any]]") -> str:
    return next(name for name in client.list_database_names() if name.startswith("drain-"))


async def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    settings = replace(
        load(os.environ), store="mongo", transport="kafka", kafka_topic=f"drain-{uuid4().hex[:8]}"
    )
    await fill(settings, events)
    first = await drained(settings, events)
    plain = await asyncio.to_thread(bare, settings, events)
    second = await drained(settings, events)
    console = Console(highlight=False)
    for what, rate in (("A service", first), ("B bare loop", plain), ("A service", second)):
        console.print(f"{what:<12} {rate:>8,.0f} events/s")
    console.print(f"ratio A/B    {(first + second) / 2 / plain:>8.2f}")


if __name__ == "__main__":
    asyncio.run(main())
