"""What the peers share: where the servers are, what a request looks like, what a charge costs."""

import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import uvicorn
from bson.codec_options import CodecOptions
from bson.decimal128 import Decimal128
from fastapi import FastAPI
from pydantic import BaseModel
from pymongo import AsyncMongoClient

Document = dict[str, Any]

TOPIC: Final = os.environ["PEER_TOPIC"]
GROUP: Final = os.environ["PEER_GROUP"]
KAFKA: Final = os.environ["PEER_KAFKA"]
PRICE: Final = Decimal("200.00")
PRICE_128: Final = Decimal128(PRICE)
LOGGER: Final = logging.getLogger("peer")
"""Of warnings and errors: a line a message would cost."""
POLL_INTERVAL: Final = 0.1
"""Seconds between two looks into an outbox that was empty: ten a second is usual."""


class NewAppointment(BaseModel):
    """Who sees whom."""

    physician_id: UUID
    patient_id: UUID


class Finished(BaseModel):
    """The event, as clinic writes it too: one backlog serves all."""

    appointment_id: UUID
    physician_id: UUID
    patient_id: UUID
    price: Decimal
    start: datetime
    end: datetime


def mongo() -> AsyncMongoClient[Document]:
    """A client with the durability of clinic's."""
    return AsyncMongoClient(
        os.environ["PEER_MONGO"],
        uuidRepresentation="standard",
        tz_aware=True,
        w="majority",
        journal=True,
        readConcernLevel="majority",
    )


def database(client: AsyncMongoClient[Document]) -> Any:
    """This run's own."""
    options: CodecOptions[Document] = client.codec_options
    return client.get_database(os.environ["PEER_DATABASE"], codec_options=options)


def now() -> datetime:
    """In whole seconds, as the clinic's dates are."""
    return datetime.now(UTC).replace(microsecond=0)


def charge(appointment_id: UUID, event: Mapping[str, Any], start: datetime, end: datetime) -> Document:
    """The charge for each hour that has begun."""
    hours = -(-int((end - start).total_seconds()) // 3600)
    price = Decimal(event["price"])
    return {
        "_id": appointment_id,
        "physician_id": event["physician_id"],
        "patient_id": event["patient_id"],
        "price": Decimal128(price),
        "total": Decimal128(price * hours),
        "start": start,
        "end": end,
        "charged_at": datetime.now(UTC),
    }


def serve(services: Mapping[str, FastAPI]) -> None:
    """`python -m benchmarks.peers.NAME appointment|financial PORT`."""
    uvicorn.run(
        services[sys.argv[1]],
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=75,
    )
