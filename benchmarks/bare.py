"""The limit of a drain: a bare loop of the two drivers that consumes, inserts and commits.

python -m benchmarks.bare PORT
"""

import os
import signal
import sys
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Final
from uuid import UUID

import msgspec
import pymongo
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from confluent_kafka import Consumer

BATCH_SIZE: Final = 2000
INDEXES: Final = (
    ("charged_at", "_id"),
    ("physician_id", "charged_at", "_id"),
    ("patient_id", "charged_at", "_id"),
)


class Ready(BaseHTTPRequestHandler):
    """Answers 200 to everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        return


def documents(values: list[bytes]) -> list[dict[str, Any]]:
    """As large as clinic's; nothing is decided."""
    now = datetime.now(UTC)
    return [
        {
            "_id": UUID(event["appointment_id"]),
            "physician_id": UUID(event["physician_id"]),
            "patient_id": UUID(event["patient_id"]),
            "price": event["price"],
            "hours": "1",
            "total": event["price"],
            "start": now,
            "end": now,
            "charged_at": now,
            "pricing": "hours-begun",
            "origin": {"position": "a/position/0/1", "published_at": now, "received_at": now, "attempts": 1},
        }
        for event in map(msgspec.json.decode, values)
    ]


def main() -> None:
    """Consume until SIGTERM."""
    ending = Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
        os.environ["PEER_MONGO"], w="majority", journal=True
    )
    options = CodecOptions[dict[str, Any]](uuid_representation=UuidRepresentation.STANDARD)
    charges = client[os.environ["PEER_DATABASE"]].get_collection("charges", codec_options=options)
    for index in INDEXES:
        charges.create_index([(name, pymongo.ASCENDING) for name in index])
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["PEER_KAFKA"],
            "group.id": os.environ["PEER_GROUP"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([os.environ["PEER_TOPIC"]])
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Ready)
    Thread(target=server.serve_forever, daemon=True).start()
    while not ending.is_set():
        if records := consumer.consume(BATCH_SIZE, 0.1):
            values = [value for record in records if (value := record.value())]
            charges.insert_many(documents(values), ordered=False)
            consumer.commit(asynchronous=False)
    consumer.close()
    client.close()


if __name__ == "__main__":
    main()
