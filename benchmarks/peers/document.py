"""Peer B: the outbox inside the appointment, one update a finish, batches both ways, orjson.

With PEER_WAKE=yes the finish wakes the relay (B+wake).
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import orjson
from fastapi import FastAPI, HTTPException, Response
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaPublishMessage
from faststream.kafka.message import KafkaMessage
from pymongo import ASCENDING, ReturnDocument
from pymongo.errors import BulkWriteError

from benchmarks.peers import shared
from benchmarks.peers.shared import Document, NewAppointment

BATCH = 1000
IS_WOKEN = os.environ.get("PEER_WAKE") == "yes"
DUPLICATE = 11000

client = shared.mongo()
database = shared.database(client)
appointments = database.appointments
charges = database.charges
broker = KafkaBroker(
    shared.KAFKA,
    acks="all",
    enable_idempotence=True,
    max_batch_size=1024 * 1024,
    allow_auto_create_topics=False,
    apply_types=False,
    logger=shared.LOGGER,
)
finished_one = asyncio.Event()


@asynccontextmanager
async def relaying(_: FastAPI) -> AsyncIterator[None]:
    waiting = {"outbox": {"$exists": True}}
    await appointments.create_index([("outbox", ASCENDING)], partialFilterExpression=waiting)
    await broker.start()
    relay = asyncio.create_task(publish_outbox())
    yield
    relay.cancel()
    await broker.stop()


@asynccontextmanager
async def consuming(_: FastAPI) -> AsyncIterator[None]:
    await broker.start()
    yield
    await broker.stop()


appointment, financial = FastAPI(lifespan=relaying), FastAPI(lifespan=consuming)


@appointment.post("/")
async def start(new: NewAppointment) -> Response:
    document = {
        "_id": uuid4(),
        "physician_id": new.physician_id,
        "patient_id": new.patient_id,
        "price": shared.PRICE_128,
        "start": shared.now(),
        "end": None,
    }
    await appointments.insert_one(document)
    return answer(document, 201)


@appointment.post("/{appointment_id}/")
async def finish(appointment_id: UUID) -> Response:
    end = shared.now()
    found = await appointments.find_one_and_update(
        {"_id": appointment_id, "end": None},
        {"$set": {"end": end, "outbox": end}},
        return_document=ReturnDocument.AFTER,
    )
    if found:
        finished_one.set()
    else:
        found = await appointments.find_one({"_id": appointment_id})
    if found is None:
        raise HTTPException(404)
    return answer(found)


async def publish_outbox() -> None:
    while True:
        finished_one.clear()
        waiting = await appointments.find({"outbox": {"$exists": True}}).limit(BATCH).to_list()
        if waiting:
            await broker.publish_batch(*[event(found) for found in waiting], topic=shared.TOPIC)
            published = {"_id": {"$in": [found["_id"] for found in waiting]}}
            await appointments.update_many(published, {"$unset": {"outbox": True}})
        elif IS_WOKEN:
            with suppress(TimeoutError):
                await asyncio.wait_for(finished_one.wait(), shared.POLL_INTERVAL)
        else:
            await asyncio.sleep(shared.POLL_INTERVAL)


def event(found: Document) -> KafkaPublishMessage:
    data = {
        "appointment_id": found["_id"],
        "physician_id": found["physician_id"],
        "patient_id": found["patient_id"],
        "price": str(found["price"]),
        "start": found["start"],
        "end": found["end"],
    }
    return KafkaPublishMessage(orjson.dumps(data), key=str(found["_id"]).encode())


@appointment.get("/health/ready")
@financial.get("/health/ready")
async def ready() -> dict[str, str]:
    await client.admin.command("ping")
    return {"status": "ready"}


@financial.get("/{appointment_id}/")
async def find(appointment_id: UUID) -> Response:
    found = await charges.find_one({"_id": appointment_id})
    if found is None:
        raise HTTPException(404)
    return json({"appointment_id": appointment_id, "total": str(found["total"])})


async def decode(message: KafkaMessage) -> Sequence[Any]:
    return [orjson.loads(body) for body in message.body]


async def consume(events: Sequence[Any]) -> None:
    documents = [
        shared.charge(
            UUID(found["appointment_id"]),
            {
                **found,
                "physician_id": UUID(found["physician_id"]),
                "patient_id": UUID(found["patient_id"]),
            },
            datetime.fromisoformat(found["start"]),
            datetime.fromisoformat(found["end"]),
        )
        for found in events
    ]
    try:
        await charges.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        details = error.details or {}
        if details["writeConcernErrors"] or any(it["code"] != DUPLICATE for it in details["writeErrors"]):
            raise


def subscribe() -> None:
    """For the financial service alone: a broker starts what subscribes."""
    broker.subscriber(
        shared.TOPIC,
        group_id=shared.GROUP,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
        batch=True,
        max_records=BATCH,
        # After an empty look it sleeps for as long as it waited: at the usual 200 ms a lone event is late.
        batch_timeout_ms=10,
        decoder=decode,
    )(consume)


def answer(document: Document, status: int = 200) -> Response:
    shown = {
        "id": document["_id"],
        "start_date": document["start"],
        "end_date": document["end"],
        "physician_id": document["physician_id"],
        "patient_id": document["patient_id"],
        "price": str(document["price"]),
    }
    return json(shown, status)


def json(shown: Document, status: int = 200) -> Response:
    return Response(orjson.dumps(shown), status, media_type="application/json")


if __name__ == "__main__":
    if sys.argv[1] == "financial":
        subscribe()
    shared.serve({"appointment": appointment, "financial": financial})
