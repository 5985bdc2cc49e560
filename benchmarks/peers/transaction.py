"""Peer A: a transaction writes the appointment and an outbox document, a relay polls, a handler a message."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from fastapi import FastAPI, HTTPException
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from pydantic import BaseModel
from pymongo import ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError

from benchmarks.peers import shared
from benchmarks.peers.shared import Document, Finished, NewAppointment

BATCH = 500
JSON = {"content-type": "application/json"}

client = shared.mongo()
database = shared.database(client)
broker = KafkaBroker(
    shared.KAFKA, acks="all", enable_idempotence=True, allow_auto_create_topics=False, logger=shared.LOGGER
)


class Appointment(BaseModel):
    """The answer."""

    id: UUID
    start_date: datetime
    end_date: datetime | None
    physician_id: UUID
    patient_id: UUID
    price: Decimal


@asynccontextmanager
async def relaying(_: FastAPI) -> AsyncIterator[None]:
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


@appointment.post("/", status_code=201)
async def start(new: NewAppointment) -> Appointment:
    document = {
        "_id": uuid4(),
        "physician_id": new.physician_id,
        "patient_id": new.patient_id,
        "price": shared.PRICE_128,
        "start": shared.now(),
        "end": None,
    }
    await database.appointments.insert_one(document)
    return answer(document)


@appointment.post("/{appointment_id}/")
async def finish(appointment_id: UUID) -> Appointment:
    async with client.start_session() as session:
        finished = await session.with_transaction(lambda session: _finish(session, appointment_id))
    found = finished or await database.appointments.find_one({"_id": appointment_id})
    if found is None:
        raise HTTPException(404)
    return answer(found)


async def _finish(session: AsyncClientSession, appointment_id: UUID) -> Document | None:
    finished: Document | None = await database.appointments.find_one_and_update(
        {"_id": appointment_id, "end": None},
        {"$set": {"end": shared.now()}},
        return_document=ReturnDocument.AFTER,
        session=session,
    )
    if finished:
        event = Finished(appointment_id=appointment_id, **answer_fields(finished))
        document = {"_id": uuid4(), "key": str(appointment_id), "event": event.model_dump_json()}
        await database.outbox.insert_one(document, session=session)
    return finished


async def publish_outbox() -> None:
    while True:
        waiting = await database.outbox.find().limit(BATCH).to_list()
        sending = [
            broker.publish(found["event"], shared.TOPIC, key=found["key"].encode(), headers=JSON)
            for found in waiting
        ]
        await asyncio.gather(*sending)
        if waiting:
            await database.outbox.delete_many({"_id": {"$in": [found["_id"] for found in waiting]}})
        else:
            await asyncio.sleep(shared.POLL_INTERVAL)


@appointment.get("/health/ready")
@financial.get("/health/ready")
async def ready() -> dict[str, str]:
    await client.admin.command("ping")
    return {"status": "ready"}


@financial.get("/{appointment_id}/")
async def find(appointment_id: UUID) -> dict[str, Any]:
    found = await database.charges.find_one({"_id": appointment_id})
    if found is None:
        raise HTTPException(404)
    return {"appointment_id": appointment_id, "total": found["total"].to_decimal()}


async def consume(event: Finished) -> None:
    charge = shared.charge(event.appointment_id, event.model_dump(), event.start, event.end)
    try:
        await database.charges.insert_one(charge)
    except DuplicateKeyError:
        return  # it was charged already


def subscribe() -> None:
    """For the financial service alone: a broker starts what subscribes."""
    broker.subscriber(
        shared.TOPIC, group_id=shared.GROUP, auto_offset_reset="earliest", ack_policy=AckPolicy.NACK_ON_ERROR
    )(consume)


def answer(document: Document) -> Appointment:
    fields = answer_fields(document)
    return Appointment(
        id=document["_id"], start_date=fields.pop("start"), end_date=fields.pop("end"), **fields
    )


def answer_fields(document: Document) -> Document:
    return {
        "physician_id": document["physician_id"],
        "patient_id": document["patient_id"],
        "price": document["price"].to_decimal(),
        "start": document["start"],
        "end": document["end"],
    }


if __name__ == "__main__":
    if sys.argv[1] == "financial":
        subscribe()
    shared.serve({"appointment": appointment, "financial": financial})
