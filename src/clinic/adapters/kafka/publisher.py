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
from clinic.adapters.kafka.cluster import KafkaConfig, make_topic, position, time
from clinic.domain.errors import Refused, Unavailable
from clinic.domain.messaging.messages import Message, PublishResult
from clinic.domain.messaging.ports import Publisher, Resource, Telemetry

POLL_INTERVAL: Final = 0.05
"""Seconds that closing may take to be noticed."""
OF_THE_MESSAGE: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG_SIZE}
)
"""What no repetition mends."""


class KafkaPublisher(Publisher, Resource):
    """The way into the topic. `lease` is the relay's, in seconds: a delivery is given up before half of it is
    over.
    """

    def __init__(self, kafka: KafkaConfig, lease: float, telemetry: Telemetry) -> None:
        self._kafka, self._lease, self._notices = kafka, lease, telemetry
        self._producer: Producer | None = None
        self._broken, self._closing = Event(), Event()
        self._polling: Thread | None = None

    async def open(self) -> None:
        """Raises `Unavailable` without a cluster, `Misconfigured` where the topic is missing and cannot be
        made.
        """
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

    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        if self._producer is None:
            raise Unavailable("the connection to Kafka is closed")
        if not batch:
            return []
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
        try:
            async with asyncio.timeout(self._lease):  # a client that has died reports nothing more
                return await sending.outcome
        except TimeoutError:
            self._broken.set()
            raise Unavailable("Kafka does not say whether events are kept") from None

    def _new_producer(self) -> Producer:
        required = {
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "delivery.timeout.ms": int(self._lease * 450),
        }
        return self._kafka.client(Producer, required, linger_ms=0)

    def _poll(self) -> None:
        while not self._closing.is_set() and self._producer is not None:
            try:
                self._producer.poll(POLL_INTERVAL)
            except KafkaException:  # fatal: this client is of no more use
                self._broken.set()
                self._closing.wait(POLL_INTERVAL)


class _Sending:
    """A batch on its way: reports come from the client's thread, and the last one answers for all."""

    def __init__(self, batch: Sequence[Message]) -> None:
        self._batch, self._loop = batch, asyncio.get_running_loop()
        self._reports: list[tuple[int, KafkaError | None, Record | None]] = []
        self.outcome: asyncio.Future[Sequence[PublishResult]] = self._loop.create_future()

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
            self.outcome.set_exception(
                Unavailable(f"Kafka does not say whether events are kept: {unknown[0].str()}")
            )
        elif errors:
            self.outcome.set_exception(Refused(f"Kafka refuses it: {errors[0].str()}"))
        else:
            reports = sorted(self._reports, key=lambda report: report[0])
            self.outcome.set_result([_published(self._batch[index], record) for index, _, record in reports])


def _published(message: Message, record: Record | None) -> PublishResult:
    assert record is not None, "what is reported without an error is a record"  # noqa: S101 — says it to the type checker
    return PublishResult(message, position(record), time(record))
