"""The way into a Kafka topic: CloudEvents in binary mode, the appointment's id as key.

librdkafka's client is synchronous: it has a thread of its own, and one wake-up of the event loop a batch.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from threading import Event, Thread
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Record

from clinic.adapters import cloudevents
from clinic.adapters.kafka_cluster import Kafka, make_topic, position, time
from clinic.domain.errors import Refused, Unavailable
from clinic.domain.messaging import Message, Notices, Published, Publisher

POLL_EVERY: Final = 0.05
"""Seconds that closing may take to be noticed."""
OF_THE_MESSAGE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG_SIZE})
"""What no repetition mends."""


class KafkaPublisher(Publisher):
    """The way into the topic. `lease` is the relay's, in seconds: a delivery is given up before half of it is over."""

    def __init__(self, kafka: Kafka, lease: float, notices: Notices) -> None:
        self._kafka, self._timeout, self._notices = kafka, int(lease * 450), notices
        self._producer: Producer | None = None
        self._broken, self._closing = Event(), Event()
        self._polling: Thread | None = None

    async def open(self) -> None:
        """Raises `Unavailable` without a cluster, `Misconfigured` where the topic is missing and cannot be made."""
        await asyncio.to_thread(make_topic, self._kafka, self._notices)
        self._closing.clear()
        self._producer = self._new_producer()
        self._polling = Thread(target=self._poll, name="kafka-publisher", daemon=True)
        self._polling.start()

    async def close(self) -> None:
        self._closing.set()
        if self._polling is not None:
            await asyncio.to_thread(self._polling.join)
        self._producer = self._polling = None

    async def publish(self, batch: Sequence[Message]) -> Sequence[Published]:
        if self._producer is None:
            raise Unavailable("the connection to Kafka is closed")
        if self._broken.is_set():
            self._broken.clear()
            self._producer = self._new_producer()
        sending = _Sending(batch)
        for index, message in enumerate(batch):
            try:
                self._producer.produce(
                    self._kafka.topic,
                    key=message.key,
                    value=message.data,
                    headers=[*cloudevents.headers(message)],
                    on_delivery=partial(sending.report, index),
                )
            except BufferError:
                sending.report(index, KafkaError(KafkaError._QUEUE_FULL), None)
            except KafkaException as error:
                sending.report(index, error.args[0], None)
        return await sending.outcome

    def _new_producer(self) -> Producer:
        return Producer(
            self._kafka.client(
                enable_idempotence=True,
                acks="all",
                partitioner="murmur2_random",
                delivery_timeout_ms=self._timeout,
                linger_ms=0,
            )
            | {"error_cb": self._note}
        )

    def _note(self, error: KafkaError) -> None:
        if error.fatal():
            self._broken.set()

    def _poll(self) -> None:
        while not self._closing.is_set() and self._producer is not None:
            self._producer.poll(POLL_EVERY)


class _Sending:
    """A batch on its way: reports come from the client's thread, and the last one answers for all."""

    def __init__(self, batch: Sequence[Message]) -> None:
        self._batch, self._loop = batch, asyncio.get_running_loop()
        self._reports: list[tuple[int, KafkaError | None, Record | None]] = []
        self.outcome: asyncio.Future[Sequence[Published]] = self._loop.create_future()

    def report(self, index: int, error: KafkaError | None, record: Record | None) -> None:
        self._reports.append((index, error, record))
        if len(self._reports) == len(self._batch):
            self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if self.outcome.done():
            return
        errors = [error for _, error, _ in self._reports if error is not None]
        unknown = [error for error in errors if error.code() not in OF_THE_MESSAGE]
        if unknown:
            self.outcome.set_exception(Unavailable(f"Kafka does not say whether events are kept: {unknown[0].str()}"))
        elif errors:
            self.outcome.set_exception(Refused(f"Kafka refuses it: {errors[0].str()}"))
        else:
            reports = sorted(self._reports, key=lambda report: report[0])
            self.outcome.set_result(
                [Published(self._batch[index], position(record), time(record)) for index, _, record in reports if record]
            )
