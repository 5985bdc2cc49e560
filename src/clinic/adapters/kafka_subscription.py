"""The way out of a Kafka topic, as a member of a consumer group.

librdkafka's client is synchronous: it has a thread of its own, and one wake-up of the event loop a batch.
"""

import asyncio
import queue
from collections.abc import Sequence
from datetime import datetime
from threading import Event, Thread
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka import Message as Record

from clinic.adapters import cloudevents
from clinic.adapters.kafka_cluster import NO_ANSWER, Kafka, make_topic, place, position, time
from clinic.domain.errors import ClinicError, Unavailable
from clinic.domain.messaging import Clock, Delivery, Notices, Origin, Subscription

BATCH: Final = 500
POLL_EVERY: Final = 0.05
"""Seconds between two signs of life to the client while a batch is held, or nothing comes."""


class KafkaSubscription(Subscription):
    """A member of the group. Its thread hands a batch over, reads the next one ahead, and keeps the client alive meanwhile."""

    def __init__(self, kafka: Kafka, clock: Clock, notices: Notices) -> None:
        self._kafka, self._clock, self._notices = kafka, clock, notices
        self._closing = Event()
        self._thread: Thread | None = None
        self._batches: asyncio.Queue[_Batch | Exception] = asyncio.Queue()
        self._held: _Batch | None = None

    async def open(self) -> None:
        """Raises `Unavailable` without a cluster, `Misconfigured` where the topic is missing and cannot be made."""
        await asyncio.to_thread(make_topic, self._kafka, self._notices)
        self._closing.clear()
        self._loop = asyncio.get_running_loop()
        self._thread = Thread(target=self._run, name="kafka-subscription", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        self._closing.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    async def receive(self) -> Sequence[Delivery]:
        if self._thread is None:
            raise Unavailable("the connection to Kafka is closed")
        while self._held is None or self._held.is_dropped:
            came = await self._batches.get()
            if isinstance(came, Exception):
                raise came
            self._held = came
        return self._held.deliveries

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        if self._thread is None:
            raise Unavailable("the connection to Kafka is closed")
        held = self._held
        if held is None or held.is_dropped or not batch:
            return  # another member has it by now
        acknowledged: asyncio.Future[None] = self._loop.create_future()
        held.acknowledgements.put(acknowledged)
        if not held.is_dropped:
            await acknowledged
        self._held = None

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._consume()
            except KafkaException as error:
                self._hand_over(Unavailable(f"Kafka does not answer: {error.args[0].str()}"))
                self._closing.wait(1)
            except Exception as error:
                self._hand_over(error)
                raise

    def _consume(self) -> None:
        """Until the client is of no more use: then the next one begins where the group's offsets are."""
        member = _Member(self._kafka)
        try:
            while not self._closing.is_set():
                if held := member.next_batch(self._clock):
                    self._hand_over(held)
                    self._hold(member, held)
        finally:
            if member.held:
                member.held.drop(self._loop)
            member.close()

    def _hold(self, member: "_Member", held: "_Batch") -> None:
        member.look_ahead(self._clock)
        while not self._closing.is_set():
            try:
                acknowledged = held.acknowledgements.get(timeout=POLL_EVERY)
            except queue.Empty:
                member.stay()
                continue
            failure = member.commit(held)
            if failure is None:
                member.go_on()
            self._loop.call_soon_threadsafe(_answer, acknowledged, failure)
            if failure is None:
                return

    def _hand_over(self, came: "_Batch | Exception") -> None:
        self._loop.call_soon_threadsafe(self._batches.put_nowait, came)


class _Batch:
    """Records in the consumer's hands. `gone` are the partitions that another member has taken over meanwhile."""

    def __init__(self, records: Sequence[Record], now: datetime) -> None:
        self._deliveries = [(record.partition(), _delivery(record, now)) for record in records]
        self.gone: set[int | None] = set()
        self.acknowledgements: queue.SimpleQueue[asyncio.Future[None]] = queue.SimpleQueue()
        self.is_dropped = False
        self._ends: dict[int, int] = {}
        for record in records:
            partition, offset = place(record)
            self._ends[partition] = offset + 1

    @property
    def deliveries(self) -> Sequence[Delivery]:
        return [delivery for partition, delivery in self._deliveries if partition not in self.gone]

    def ends(self, topic: str) -> list[TopicPartition]:
        """The next offset of every partition in it that is still this member's."""
        return [TopicPartition(topic, partition, end) for partition, end in self._ends.items() if partition not in self.gone]

    def drop(self, loop: asyncio.AbstractEventLoop) -> None:
        self.is_dropped = True
        while not self.acknowledgements.empty():
            loop.call_soon_threadsafe(_answer, self.acknowledgements.get(), None)


class _Member:
    """One client in the group."""

    def __init__(self, kafka: Kafka) -> None:
        self.held: _Batch | None = None
        self._ahead: _Batch | None = None
        self._topic = kafka.topic
        self._is_paused = False
        # A member that dies is missed within seconds; with the other protocol, how soon is for the broker to say.
        classic = {"partition_assignment_strategy": "cooperative-sticky", "session_timeout_ms": 6000, "heartbeat_interval_ms": 1500}
        self._consumer = Consumer(
            kafka.client(
                group_id=kafka.group,
                group_protocol=kafka.protocol,
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                **(classic if kafka.protocol == "classic" else {}),
            )
        )
        self._consumer.subscribe([kafka.topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)

    def close(self) -> None:
        self._consumer.close()

    def next_batch(self, clock: Clock) -> _Batch | None:
        """What was read ahead and is still this member's, or the next that comes soon; it is held from now on."""
        ahead, self._ahead = self._ahead, None
        self.held = ahead if ahead and ahead.deliveries else self._read(clock, POLL_EVERY)
        return self.held

    def look_ahead(self, clock: Clock) -> None:
        """Read what is here already, while others work on the batch that is held."""
        self._ahead = self._read(clock, 0)

    def _read(self, clock: Clock, within: float) -> _Batch | None:
        first = self._consumer.poll(within)
        if first is None:
            return None
        records = [record for record in (first, *self._consumer.consume(BATCH - 1, 0)) if _is_event(record)]
        return _Batch(records, clock()) if records else None

    def stay(self) -> None:
        """A sign of life while a batch is held: without it the group expels the member, and nothing new comes with it."""
        if not self._is_paused:
            self._consumer.pause(self._consumer.assignment())
            self._is_paused = True
        record = self._consumer.poll(0)
        if record is not None and _is_event(record):
            self._consumer.seek(TopicPartition(self._topic, *place(record)))

    def commit(self, held: _Batch) -> ClinicError | None:
        """None where the offsets are kept, or another member has the partitions: then it delivers them again."""
        ends = held.ends(self._topic)
        try:
            kept = self._consumer.commit(offsets=ends, asynchronous=False) if ends else []
            errors = [each.error for each in kept or () if each.error]
        except KafkaException as error:
            errors = [error.args[0]]
        unknown = [error for error in errors if error.retriable() or error.code() in NO_ANSWER]
        return Unavailable(f"Kafka does not say whether offsets are kept: {unknown[0].str()}") if unknown else None

    def go_on(self) -> None:
        """The batch is done with."""
        self.held = None
        if self._is_paused:
            self._consumer.resume(self._consumer.assignment())
            self._is_paused = False

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign(partitions)
        if self._is_paused:
            consumer.pause(partitions)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for batch in (self.held, self._ahead):
            if batch:
                batch.gone.update(each.partition for each in partitions)
        consumer.incremental_unassign(partitions)


def _is_event(record: Record) -> bool:
    error = record.error()
    if error is not None and error.fatal():
        raise KafkaException(error)
    return error is None


def _answer(acknowledged: "asyncio.Future[None]", failure: ClinicError | None) -> None:
    if acknowledged.done():
        return
    if failure:
        acknowledged.set_exception(failure)
    else:
        acknowledged.set_result(None)


def _delivery(record: Record, now: datetime) -> Delivery:
    key, value = _bytes(record.key()), _bytes(record.value())
    named: Any = record.headers() or ()
    headers = tuple((name, _bytes(content)) for name, content in named)
    return Delivery(
        message=cloudevents.message(key, headers, value),
        origin=Origin(position=position(record), published_at=time(record), received_at=now),
        key=key,
        headers=headers,
        value=value,
    )


def _bytes(content: str | bytes | None) -> bytes | None:
    return content.encode() if isinstance(content, str) else content
