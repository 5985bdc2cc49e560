"""The way into a Kafka topic: CloudEvents in binary mode, the appointment's id as key."""

import asyncio
import sys
from collections.abc import Sequence
from functools import partial
from threading import Event, Thread
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Record

from clinic.adapters import cloudevents
from clinic.adapters.kafka.cluster import KafkaConfig, Topic, id_of, position
from clinic.adapters.threads import in_thread
from clinic.domain.errors import Misconfigured, Refused, Unavailable
from clinic.domain.messaging.messages import Message, PublishResult
from clinic.domain.messaging.ports import Publisher, Resource, Telemetry

POLL_INTERVAL: Final = 0.05
"""Seconds that closing may take to be noticed."""
ID_TIMEOUT: Final = 1.0
"""Seconds that a publication waits for the topic's id; after that, the one it had counts."""
MIN_LEASE: Final = 1.5
"""Seconds. A new client needs half a second before it publishes, and a delivery has 45 % of a lease."""
OF_THE_MESSAGE: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG_SIZE}
)
"""Errors that come again with each retry of the same message."""


class KafkaPublisher(Publisher, Resource):
    """The way into the topic. `lease` is the relay's, in seconds: a delivery fails before half of it."""

    def __init__(self, kafka: KafkaConfig, lease: float, telemetry: Telemetry) -> None:
        self._kafka, self._lease = kafka, lease
        self._telemetry = telemetry
        self._topic_id = self._failure = ""
        self._producer: Producer | None = None
        self._broken = Event()
        self._closing = Event()
        self._thread: Thread | None = None

    async def open(self) -> None:
        """Raises `Unavailable` without a cluster, `Misconfigured` where nothing could ever be published."""
        if self._lease < MIN_LEASE:
            raise Misconfigured(
                f"CLINIC_LEASE={self._lease:g} is too short to publish to Kafka: set at least {MIN_LEASE:g}"
            )
        await in_thread(self._renew)
        self._closing.clear()
        self._thread = Thread(target=self._poll, name="kafka-publisher", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        self._closing.set()
        await in_thread(self._end)

    def check_alive(self) -> None:
        """Raises `RuntimeError` where the thread that reports deliveries has ended."""
        if self._thread is None:
            raise Unavailable("the connection to Kafka is closed")
        if not self._thread.is_alive():
            raise RuntimeError(f"the thread that hears from Kafka has ended{self._failure}")

    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        if not batch:
            return []
        self.check_alive()
        try:
            async with asyncio.timeout(self._lease):  # a client that has died reports nothing more
                if self._broken.is_set():
                    await in_thread(self._renew)
                records, topic_id = await asyncio.gather(self._send(batch), self._ask_topic_id())
        except (TimeoutError, Misconfigured) as error:
            self._broken.set()
            raise Unavailable(f"Kafka does not say whether events are kept{self._failure or error}") from None
        except Unavailable:
            self._broken.set()
            raise
        topic_id = topic_id or await self._ask_topic_id() or self._topic_id
        if topic_id != self._topic_id:
            self._broken.set()  # look at its partitions and its retention, and begin to number anew
            raise Unavailable(f"the topic {self._kafka.topic} was made anew: Kafka may not have kept events")
        return [
            PublishResult(message, position(record, topic_id), cloudevents.time(record.timestamp()[1]))
            for message, record in zip(batch, records, strict=True)
        ]

    async def _send(self, batch: Sequence[Message]) -> Sequence[Record]:
        sending = Sending(len(batch))
        for index, message in enumerate(batch):
            try:
                self._producer.produce(  # type: ignore[union-attr]  # open, and not closed since
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

    async def _ask_topic_id(self) -> str:
        try:
            async with asyncio.timeout(ID_TIMEOUT):
                return id_of(await asyncio.wrap_future(self._topic.ask()))
        except (KafkaException, TimeoutError):
            return ""  # whether events are kept is for their own reports to say

    def _renew(self) -> None:
        """In a thread: a client that comes or goes can take seconds. Raises like `open`."""
        self._topic = Topic(self._kafka, self._telemetry)
        self._topic_id = self._topic.make()
        self._broken.clear()
        required = {
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "delivery.timeout.ms": int(self._lease * 450),
        }
        replaced, self._producer = self._producer, self._kafka.client(Producer, required, linger_ms=0)
        del replaced  # here, not in the event loop: the old client ends with its last reference
        self._failure = ""

    def _end(self) -> None:
        if self._thread is not None:
            self._thread.join()
        self._producer = self._thread = None

    def _poll(self) -> None:
        while not self._closing.is_set():
            try:
                self._producer.poll(POLL_INTERVAL)  # type: ignore[union-attr]  # closing ends this first
            except:  # noqa: E722 — a bare KafkaError is no BaseException, and ends a thread all the same
                self._failure = f": {sys.exc_info()[1]}"
                self._broken.set()
                self._closing.wait(POLL_INTERVAL)


class Sending:
    """A batch on its way: reports come from the client's thread, and the last one answers for all."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._loop = asyncio.get_running_loop()
        self._reports: list[tuple[int, KafkaError | None, Record | None]] = []
        self.outcome: asyncio.Future[Sequence[Record]] = self._loop.create_future()

    def report(self, index: int, error: KafkaError | None, record: Record | None) -> None:
        self._reports.append((index, error, record))
        if len(self._reports) == self._size:
            self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if self.outcome.done():
            return
        errors = [error for _, error, _ in self._reports if error is not None]
        unknown = [error for error in errors if error.code() not in OF_THE_MESSAGE]
        if unknown:
            reason = unknown[0].str()
            self.outcome.set_exception(Unavailable(f"Kafka does not say whether events are kept: {reason}"))
        elif errors:
            self.outcome.set_exception(Refused(f"Kafka refuses it: {errors[0].str()}"))
        else:
            reports = sorted(self._reports, key=lambda report: report[0])
            records = [record for _, _, record in reports if record is not None]
            if all(record.offset() is not None for record in records):
                self.outcome.set_result(records)
            else:
                # The broker knows the client's number for it already: of an earlier delivery, or, in a topic
                # made anew, of a later batch that came first. Then it keeps nothing, and reports a success.
                self.outcome.set_exception(Unavailable("Kafka does not say where events are kept"))
