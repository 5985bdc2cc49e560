"""A transport on Apache Kafka: CloudEvents in binary mode, the appointment's id as key, every topic kept for ever.

The clients of librdkafka are synchronous: each has a thread of its own, and one wake-up of the event loop a batch.
"""

import asyncio
import queue
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event, Thread
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as Record
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]
from msgspec import Struct

from clinic.adapters import cloudevents
from clinic.domain.errors import ClinicError, Misconfigured, Refused, Unavailable
from clinic.domain.messaging import Clock, Delivery, Message, Notices, Origin, Published, Publisher, Subscription

BATCH: Final = 500
POLL_EVERY: Final = 0.05
"""Seconds between two signs of life to the client while a batch is held, or nothing comes."""
OF_THE_MESSAGE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG_SIZE})
"""What no repetition mends."""
NO_ANSWER: Final = frozenset({KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT_QUEUE})
PATIENCE: Final = 10.0
SAFE_REPLICATION: Final = 3

_epoch = datetime(1970, 1, 1, tzinfo=UTC)


class Kafka(Struct, frozen=True, kw_only=True):
    """A topic on a cluster. `options` go to every client as they are (TLS, SASL, …); they may hold secrets."""

    servers: str
    topic: str
    group: str
    partitions: int
    replication: int
    protocol: str
    options: Mapping[str, str]

    def client(self, **more: Any) -> dict[str, Any]:
        """The configuration of a client."""
        own = {"bootstrap.servers": self.servers, "client.id": "clinic", "log_level": 3}
        return own | {name.replace("_", "."): value for name, value in more.items()} | dict(self.options)


class KafkaPublisher(Publisher):
    """The way into the topic. `lease` is the relay's, in seconds: a delivery is given up before half of it is over."""

    def __init__(self, kafka: Kafka, lease: float, notices: Notices) -> None:
        self._kafka, self._timeout, self._notices = kafka, int(lease * 450), notices
        self._producer: Producer | None = None
        self._broken, self._closing = Event(), Event()
        self._polling: Thread | None = None

    async def open(self) -> None:
        """Raises `Unavailable` without a cluster, `Misconfigured` where the topic is missing and cannot be made."""
        await asyncio.to_thread(_make_topic, self._kafka, self._notices)
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
                [Published(self._batch[index], _position(record), _time(record)) for index, _, record in reports if record]
            )


class KafkaSubscription(Subscription):
    """A member of the group. Its thread hands a batch over, then keeps the client alive until the batch is acknowledged."""

    def __init__(self, kafka: Kafka, clock: Clock, notices: Notices) -> None:
        self._kafka, self._clock, self._notices = kafka, clock, notices
        self._closing = Event()
        self._thread: Thread | None = None
        self._batches: asyncio.Queue[_Batch | Exception] = asyncio.Queue()
        self._held: _Batch | None = None

    async def open(self) -> None:
        """Raises `Unavailable` without a cluster, `Misconfigured` where the topic is missing and cannot be made."""
        await asyncio.to_thread(_make_topic, self._kafka, self._notices)
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
                if records := member.next_records():
                    member.held = _Batch(records, self._clock())
                    self._hand_over(member.held)
                    self._hold(member, member.held)
        finally:
            if member.held:
                member.held.drop(self._loop)
            member.close()

    def _hold(self, member: "_Member", held: "_Batch") -> None:
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
        self.deliveries = [_delivery(record, now) for record in records]
        self.gone: set[int] = set()
        self.acknowledgements: queue.SimpleQueue[asyncio.Future[None]] = queue.SimpleQueue()
        self.is_dropped = False
        self._ends: dict[int, int] = {}
        for record in records:
            partition, offset = _place(record)
            self._ends[partition] = offset + 1

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

    def next_records(self) -> Sequence[Record]:
        first = self._consumer.poll(POLL_EVERY)
        if first is None:
            return []
        return [record for record in (first, *self._consumer.consume(BATCH - 1, 0)) if _is_event(record)]

    def stay(self) -> None:
        """A sign of life while a batch is held: without it the group expels the member, and nothing new comes with it."""
        if not self._is_paused:
            self._consumer.pause(self._consumer.assignment())
            self._is_paused = True
        record = self._consumer.poll(0)
        if record is not None and _is_event(record):
            self._consumer.seek(TopicPartition(self._topic, *_place(record)))

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
        if self.held:
            self.held.gone.update(each.partition for each in partitions)
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
        origin=Origin(position=_position(record), published_at=_time(record), received_at=now),
        key=key,
        headers=headers,
        value=value,
    )


def _bytes(content: str | bytes | None) -> bytes | None:
    return content.encode() if isinstance(content, str) else content


def _place(record: Record) -> tuple[int, int]:
    """Partition and offset: what was delivered has both."""
    return record.partition() or 0, record.offset() or 0


def _position(record: Record) -> str:
    partition, offset = _place(record)
    return f"{record.topic()}/{partition}/{offset}"


def _time(record: Record) -> datetime:
    return _epoch + timedelta(milliseconds=max(0, record.timestamp()[1]))


def _make_topic(kafka: Kafka, notices: Notices) -> None:
    """The topic with unlimited retention, unless it is there; a weaker one that is there gets a warning."""
    admin = AdminClient(kafka.client())
    try:
        if kafka.topic in admin.list_topics(timeout=PATIENCE).topics:
            _warn_of_weakness(admin, kafka, notices)
            return
        topic = NewTopic(kafka.topic, kafka.partitions, kafka.replication, config=_wanted(kafka))
        admin.create_topics([topic], request_timeout=PATIENCE)[kafka.topic].result()
    except KafkaException as error:
        reason = error.args[0]
        if reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return
        if reason.retriable() or reason.code() in NO_ANSWER:
            raise Unavailable(f"Kafka at {kafka.servers} does not answer: {reason.str()}") from error
        raise Misconfigured(
            f"the topic {kafka.topic} is missing and cannot be made ({reason.str()}): make it with {kafka.partitions} partitions, "
            f"replication {kafka.replication} and {_wanted(kafka)}, or allow this client to"
        ) from error


def _wanted(kafka: Kafka) -> dict[str, str]:
    safe = {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"} if kafka.replication >= SAFE_REPLICATION else {}
    return {"retention.ms": "-1", "retention.bytes": "-1", **safe}


def _warn_of_weakness(admin: AdminClient, kafka: Kafka, notices: Notices) -> None:
    resource = ConfigResource(ConfigResource.Type.TOPIC, kafka.topic)
    try:
        found = admin.describe_configs([resource], request_timeout=PATIENCE)[resource].result()
    except KafkaException:
        return  # not allowed to look: then it is not ours to judge either
    weak = {name: found[name].value for name, value in _wanted(kafka).items() if name in found and found[name].value != value}
    if weak:
        notices("topic is weaker than asked for", topic=kafka.topic, found=weak, wanted=_wanted(kafka))
