"""What the subscription to a Kafka topic is made of: a client in the group, and the batches that it reads."""

import asyncio
import queue
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime
from functools import partial
from threading import Thread
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record
from confluent_kafka.admin import TopicDescription  # type: ignore[attr-defined]

from clinic.adapters import cloudevents
from clinic.adapters.group_commit import answer
from clinic.adapters.kafka.cluster import KafkaConfig, Topic, id_of, offset, position
from clinic.domain.errors import ClinicError, Unavailable
from clinic.domain.messaging.messages import Delivery, Origin
from clinic.domain.messaging.ports import Clock

BATCH_SIZE: Final = 2000
POLL_INTERVAL: Final = 0.05
"""Seconds between two signs of life to the client while nothing comes."""
ANSWER_TIMEOUT: Final = 5.0
"""Seconds that a broker may take for an answer."""
PARTITIONS_KNOWN_WITHIN: Final = 10.0
"""Seconds until the group reads partitions that were added to the topic: librdkafka's default is 300."""
NO_LONGER_OURS: Final = frozenset({
    KafkaError.FENCED_INSTANCE_ID, KafkaError.FENCED_MEMBER_EPOCH, KafkaError.ILLEGAL_GENERATION,
    KafkaError.STALE_MEMBER_EPOCH, KafkaError.UNKNOWN_MEMBER_ID,
})  # fmt: skip
"""How the group says that another member has the partitions: it delivers again what is in them."""


class Batch:
    """Records read together, partitions taken over, a question for the topic's id put after the reading."""

    def __init__(
        self,
        records: Sequence[Record],
        deliveries: Sequence[Delivery],
        asked: "Future[TopicDescription]",
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.deliveries = deliveries
        self.asked = asked
        self.revoked: set[int] = set()
        self.is_dropped = False
        self._loop = loop
        self._acknowledgements: queue.SimpleQueue[asyncio.Future[None]] = queue.SimpleQueue()
        self._acknowledgement: asyncio.Future[None] | None = None
        self._partitions = [offset(record)[0] for record in records]
        self._next_offsets = {partition: last + 1 for partition, last in map(offset, records)}

    def is_made_of(self, batch: Sequence[Delivery]) -> bool:
        mine = [delivery.origin.position for delivery in self.deliveries]
        return mine == [delivery.origin.position for delivery in batch]

    def leave_out_what_is_revoked(self) -> bool:
        """Whether anything is left. Call it only before the batch is handed over."""
        both = zip(self._partitions, self.deliveries, strict=True)
        self.deliveries = [delivery for partition, delivery in both if partition not in self.revoked]
        return bool(self.deliveries)

    def next_offsets(self, topic: str, topic_id: str) -> list[TopicPartition]:
        """For each partition that is still this member's."""
        return [
            TopicPartition(topic, partition, next_, topic_id)
            for partition, next_ in self._next_offsets.items()
            if partition not in self.revoked
        ]

    async def acknowledge(self) -> None:
        """In the event loop: ask the thread, and wait for its answer."""
        acknowledgement: asyncio.Future[None] = self._loop.create_future()
        self._acknowledgements.put(acknowledgement)
        if not self.is_dropped:
            await acknowledgement

    def is_acknowledged_within(self, seconds: float) -> bool:
        """In the thread; `settle` answers."""
        with suppress(queue.Empty):
            self._acknowledgement = self._acknowledgements.get(timeout=seconds)
        return self._acknowledgement is not None

    def settle(self, failure: ClinicError | None) -> None:
        """In the thread: the answer to the caller that acknowledges."""
        acknowledgement, self._acknowledgement = self._acknowledgement, None
        if acknowledgement is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(answer, acknowledgement, failure)

    def drop(self) -> None:
        """In the thread: what is in it comes again, in another batch."""
        self.is_dropped = True
        self.settle(None)
        while self.is_acknowledged_within(0):
            self.settle(None)


class Member:
    """One client in the group."""

    def __init__(self, kafka: KafkaConfig, topic: Topic, topic_id: str, clock: Clock) -> None:
        self.held: Batch | None = None
        self._ahead: Batch | None = None
        self._topic, self._topic_id = topic, topic_id
        self._name = kafka.topic
        self._clock = clock
        self._is_paused = False
        self._committing: queue.SimpleQueue[ClinicError | None] | None = None
        # The group misses a dead member within seconds; with the other protocol the broker decides.
        classic = {
            "partition_assignment_strategy": "cooperative-sticky",
            "session_timeout_ms": 6000,
            "heartbeat_interval_ms": 1500,
        }
        self._consumer = kafka.client(
            Consumer,
            {"auto.offset.reset": "earliest", "enable.auto.commit": False, "enable.auto.offset.store": False},
            group_id=kafka.group,
            group_protocol=kafka.protocol,
            socket_timeout_ms=int(ANSWER_TIMEOUT * 1000),
            topic_metadata_refresh_interval_ms=int(PARTITIONS_KNOWN_WITHIN * 1000),
            queued_max_messages_kbytes=4096,  # three batches; by default 64 MB, which it never gives back
            fetch_queue_backoff_ms=20,  # of the time that a batch takes: by default a second
            **(classic if kafka.protocol == "classic" else {}),
        )
        self._consumer.subscribe(
            [self._name], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    def close(self) -> None:
        # While a commit hangs the client takes no other call: leave it, and the group will miss it.
        if self._committing is None:
            self._consumer.close()

    def probe(self) -> None:
        """Raises `KafkaException` where the broker or the coordinator is silent: nothing else says so.

        Raises `Unavailable` where the topic was made anew.
        """
        error = self._consumer.list_topics(self._name, timeout=ANSWER_TIMEOUT).topics[self._name].error
        if error is not None:
            raise KafkaException(error)
        self._check_topic(self._topic.ask())
        self._consumer.committed([TopicPartition(self._name, 0)], ANSWER_TIMEOUT)

    def _check_topic(self, asked: "Future[TopicDescription]") -> None:
        if id_of(asked.result()) != self._topic_id:
            raise Unavailable(f"the topic {self._name} was made anew: the group begins at its first event")

    def next_batch(self, loop: asyncio.AbstractEventLoop) -> Batch | None:
        """The prefetched one, without what was revoked, or the next that comes soon; held from now on."""
        ahead, self._ahead = self._ahead, None
        self.held = ahead if ahead and ahead.leave_out_what_is_revoked() else self._read(loop, POLL_INTERVAL)
        return self.held

    def prefetch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read what is here already, during the work on the batch that is held."""
        self._ahead = self._read(loop, 0)

    def _read(self, loop: asyncio.AbstractEventLoop, within: float) -> Batch | None:
        first = self._consumer.poll(within)
        came = () if first is None else (first, *self._consumer.consume(BATCH_SIZE - 1, 0))
        if not (records := [*filter(_is_event, came)]):
            return None
        now = self._clock()
        deliveries = [delivery(record, self._topic_id, now) for record in records]
        return Batch(records, deliveries, self._topic.ask(), loop)

    def keep_alive(self) -> None:
        """A sign of life while a batch is held, without which the group expels the member. Reads nothing."""
        if self._committing is not None:
            return
        if not self._is_paused:
            self._consumer.pause(self._consumer.assignment())
            self._is_paused = True
        record = self._consumer.poll(0)
        if record is not None and _is_event(record):
            self._consumer.seek(TopicPartition(self._name, *offset(record)))

    def commit(self, held: Batch) -> ClinicError | None:
        """None where the offsets are kept, or another member has the partitions. Raises like `probe`."""
        if not (ends := held.next_offsets(self._name, self._topic_id)):
            return None
        self._check_topic(held.asked)  # unchanged after reading: so the records are this topic's
        if self._committing is None:
            # The client waits for as long as a broker is silent: it does so in a thread of its own.
            self._committing = queue.SimpleQueue()
            work = partial(self._commit, ends, self._committing)
            Thread(target=work, name="kafka-commit", daemon=True).start()
        try:
            failure = self._committing.get(timeout=ANSWER_TIMEOUT)
        except queue.Empty:
            return Unavailable(f"Kafka does not say within {ANSWER_TIMEOUT:.0f} s whether offsets are kept")
        self._committing = None
        return failure

    def _commit(self, ends: list[TopicPartition], report: "queue.SimpleQueue[ClinicError | None]") -> None:
        errors: list[object] = []
        try:
            committed = self._consumer.commit(offsets=ends, asynchronous=False)
            errors = [partition.error for partition in committed or () if partition.error]
        except KafkaException as error:
            errors = [error.args[0]]
        except:  # noqa: E722 — a bare KafkaError is no BaseException: without an answer nobody could go on
            errors = [sys.exc_info()[1]]
        unknown = [error for error in errors if not _is_no_longer_ours(error)]
        failure = unknown and Unavailable(f"Kafka does not say whether offsets are kept: {unknown[0]}")
        report.put(failure or None)

    def resume(self) -> None:
        """Continue with the next batch."""
        if self._is_paused:
            self._consumer.resume(self._consumer.assignment())
            self._is_paused = False
        self.held = None

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        offsets = consumer.committed(partitions, ANSWER_TIMEOUT)
        for partition, committed in zip(partitions, offsets, strict=True):
            # Whoever keeps one without the topic's id, a foreign member or a tool, has charged nothing.
            if committed.metadata != self._topic_id:
                partition.offset = OFFSET_BEGINNING
        consumer.incremental_assign(partitions)
        if self._is_paused:
            consumer.pause(partitions)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        revoked = {partition.partition for partition in partitions}
        for batch in filter(None, (self.held, self._ahead)):
            batch.revoked |= revoked
        consumer.incremental_unassign(partitions)


def _is_no_longer_ours(error: object) -> bool:
    return isinstance(error, KafkaError) and error.code() in NO_LONGER_OURS


def delivery(record: Record, topic_id: str, now: datetime) -> Delivery:
    """What arrived, from any producer."""
    published_at = cloudevents.time(record.timestamp()[1])
    origin = Origin(position=position(record, topic_id), published_at=published_at, received_at=now)
    return cloudevents.delivery(record.key(), _headers(record), record.value(), origin)


def _headers(record: Record) -> tuple[tuple[str, bytes | None], ...]:
    try:
        return tuple(record.headers() or ())  # type: ignore[arg-type]  # it never gives text
    except (SystemError, UnicodeDecodeError):  # a name that is not UTF-8: it becomes a dead letter
        return ()


def _is_event(record: Record) -> bool:
    """False for the end of a partition. Raises `KafkaException`: this client cannot continue."""
    error = record.error()
    if error is None:
        return True
    if error.code() == KafkaError._PARTITION_EOF:
        return False
    raise KafkaException(error)
