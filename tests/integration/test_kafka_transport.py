"""The Kafka transport keeps every promise, with both protocols of its consumer groups."""

import asyncio
import ctypes
import subprocess
import sys
import threading
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic  # type: ignore[attr-defined]
from hypothesis import settings
from msgspec import json
from msgspec.structs import replace
from support import servers
from support.deployments import own_kafka
from support.processes import eventually

from clinic.adapters.kafka import cluster, member
from clinic.adapters.kafka.cluster import KafkaConfig
from clinic.adapters.kafka.publisher import MIN_LEASE, KafkaPublisher
from clinic.adapters.kafka.subscription import KafkaSubscription
from clinic.adapters.threads import in_thread
from clinic.domain.errors import Misconfigured, Unavailable
from clinic.domain.messaging.messages import Delivery, Message, PublishResult
from clinic.entrypoints.technologies.factories import FactoryContext
from clinic.entrypoints.technologies.kafka import TRANSPORT, KafkaSettings
from clinic.entrypoints.technologies.kafka_lag import KafkaLag
from clinic.testing.builders import RecordedTelemetry, a_message, now, opened
from clinic.testing.subject import FEW
from clinic.testing.transports import TransportContract

LEASE = 20.0


class TestKafkaTransport(TransportContract):
    transport = TRANSPORT
    patience = 30
    largest = 900 * 1024
    histories = settings(FEW, max_examples=12, stateful_step_count=25)
    servers: ClassVar[str] = ""
    protocol: ClassVar[Literal["classic", "consumer"]] = "classic"
    longest_hold = 8.0
    """Longer than `max.poll.interval.ms` below."""

    @pytest.fixture(autouse=True, params=["classic", "consumer"])
    def broker(self, kafka: str, request: pytest.FixtureRequest) -> None:
        type(self).servers, type(self).protocol = kafka, request.param

    @pytest.fixture
    def where(self) -> Path:
        return Path(f"test-{uuid4().hex}")

    def settings(self, where: Path) -> KafkaSettings:
        return KafkaSettings(
            bootstrap_servers=self.servers,
            topic=where.name,
            partitions=3,
            protocol=self.protocol,
            options={"max.poll.interval.ms": "6000"},
        )

    def context(self, where: Path, group: str, shared: dict[str, Any]) -> FactoryContext[Any]:
        return super().context(where, f"{where.name}-{group}", shared)

    async def remove(self, where: Path) -> None:
        await asyncio.to_thread(Made(self.servers, where.name).delete)


@pytest.fixture
def its(kafka: str) -> KafkaConfig:
    return its_own(kafka)


def its_own(servers: str) -> KafkaConfig:
    """A topic and a group of a test's own."""
    name = f"test-{uuid4().hex}"
    return KafkaConfig(
        servers=servers, topic=name, group=name, partitions=1, replication=1, protocol="classic", options={}
    )


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options reach the client that a service refuses: they show how a client fails."""
    monkeypatch.setattr(cluster, "NOT_OPTIONS", frozenset())


@pytest.mark.usefixtures("unguarded")
async def test_a_member_that_was_fenced_gets_a_new_client_and_goes_on(its: KafkaConfig) -> None:
    its = replace(its, options={"group.instance.id": "one and the same"})
    fenced, other = (KafkaSubscription(its, now, RecordedTelemetry()) for _ in range(2))
    async with (
        opened(KafkaPublisher(replace(its, options={}), LEASE, RecordedTelemetry())) as publisher,
        opened(fenced),
    ):
        await publisher.publish([a_message()])
        await fenced.acknowledge(await _received_in_the_end(fenced))
        async with opened(other):
            with pytest.raises(Unavailable, match=r"fenced|instance"):
                await fenced.receive()
        message = a_message()
        await publisher.publish([message])

        (delivery,) = await _received_in_the_end(fenced)

        assert delivery.message == message


@pytest.mark.usefixtures("unguarded")
async def test_a_client_that_fails_with_a_bare_kafka_error_is_reported_and_replaced(its: KafkaConfig) -> None:
    subscription = KafkaSubscription(
        replace(its, options={"partition.assignment.strategy": "range"}), now, RecordedTelemetry()
    )
    async with opened(subscription):
        for _ in range(2):
            # Bare from the callback, or wrapped: the client's call that met it decides.
            with pytest.raises(Unavailable, match=r"KafkaError|using assign\(\)"):
                await asyncio.wait_for(subscription.receive(), 30)
            subscription.check_alive()


def fail_bare() -> None:
    """Raise as the client does from its callbacks: KafkaError is no BaseException."""
    error = KafkaError(KafkaError._FATAL, "a bare one")  # noqa: SLF001 — the client's own name
    for each in (KafkaError, error):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))  # the next call takes them over
    ctypes.pythonapi.PyErr_Restore(ctypes.py_object(KafkaError), ctypes.py_object(error), None)


async def test_a_bare_kafka_error_in_a_call_beside_the_loop_is_answered() -> None:
    with pytest.raises(Unavailable, match="a bare one"):
        await asyncio.wait_for(in_thread(fail_bare), 30)


async def test_a_bare_kafka_error_in_the_commits_thread_is_answered(
    its: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    class FailsToCommit(Consumer):
        def commit(self, *arguments: Any, **named: Any) -> Any:
            threads.append(threading.current_thread().name)
            if len(threads) == 1:
                fail_bare()
            return super().commit(*arguments, **named)

    monkeypatch.setattr(member, "Consumer", FailsToCommit)
    async with (
        opened(KafkaPublisher(its, LEASE, RecordedTelemetry())) as publisher,
        opened(KafkaSubscription(its, now, RecordedTelemetry())) as subscription,
    ):
        await publisher.publish([message := a_message()])
        (delivery,) = batch = await _received_in_the_end(subscription)
        with pytest.raises(Unavailable, match="a bare one"):
            await subscription.acknowledge(batch)
        await subscription.acknowledge(batch)
    assert (delivery.message, threads) == (message, ["kafka-commit"] * 2)


async def test_a_silent_coordinator_is_reported_though_the_broker_answers(
    its: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_silent = threading.Event()

    class MissesItsCoordinator(Consumer):
        def committed(self, *arguments: Any, **named: Any) -> Any:
            if is_silent.is_set():
                raise KafkaException(KafkaError(KafkaError.COORDINATOR_NOT_AVAILABLE))
            return super().committed(*arguments, **named)

    monkeypatch.setattr(member, "Consumer", MissesItsCoordinator)
    monkeypatch.setattr("clinic.adapters.kafka.subscription.POLL_INTERVAL", 0.1)
    async with (
        opened(KafkaPublisher(its, LEASE, RecordedTelemetry())) as publisher,
        opened(KafkaSubscription(its, now, RecordedTelemetry())) as subscription,
    ):
        await publisher.publish([a_message()])
        await subscription.acknowledge(await _received_in_the_end(subscription))
        is_silent.set()
        async with asyncio.timeout(20):
            with pytest.raises(Unavailable, match="oordinator"):
                await subscription.receive()
            is_silent.clear()
            assert await _received_in_the_end(subscription) == (), "it answers again"


async def test_a_bare_kafka_error_in_the_publishers_thread_is_told_and_ends_nothing(
    its: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails, failed = threading.Event(), threading.Event()

    class FailsToPoll(Producer):
        def poll(self, *arguments: Any) -> int:
            if fails.is_set():
                failed.set()
                fail_bare()
            return super().poll(*arguments)

    monkeypatch.setattr("clinic.adapters.kafka.publisher.Producer", FailsToPoll)
    async with opened(KafkaPublisher(its, 3.0, RecordedTelemetry())) as publisher:
        fails.set()
        await asyncio.to_thread(failed.wait)
        with pytest.raises(Unavailable, match="a bare one"):
            await publisher.publish([a_message()])
        publisher.check_alive()
        fails.clear()
        await publisher.publish([a_message()])


async def test_a_client_that_hangs_is_noticed_and_goes_on_when_it_answers(
    its: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, hangs = threading.Event(), threading.Event()
    answers.set()

    class Hangs(Consumer):
        def poll(self, *arguments: Any) -> Any:
            if not answers.is_set():
                hangs.set()
                answers.wait()
            return super().poll(*arguments)

    monkeypatch.setattr(member, "Consumer", Hangs)
    async with (
        opened(KafkaPublisher(its, LEASE, RecordedTelemetry())) as publisher,
        opened(KafkaSubscription(its, now, RecordedTelemetry())) as subscription,
    ):
        try:
            subscription.check_alive()
            answers.clear()
            await asyncio.to_thread(hangs.wait)
            monkeypatch.setattr("clinic.adapters.kafka.subscription.STALLED_AFTER", 0.0)
            with pytest.raises(Unavailable, match="Kafka's client has not answered for"):
                subscription.check_alive()
            monkeypatch.setattr("clinic.adapters.kafka.subscription.STALLED_AFTER", 60.0)
        finally:
            answers.set()
        await publisher.publish([message := a_message()])
        (delivery,) = await _received_in_the_end(subscription)
        assert delivery.message == message


@pytest.mark.usefixtures("unguarded")
async def test_a_subscription_that_has_ended_says_so_at_each_call(its: KafkaConfig) -> None:
    subscription = KafkaSubscription(replace(its, protocol="none"), now, RecordedTelemetry())
    async with opened(subscription):
        for _ in range(2):
            with pytest.raises(Misconfigured):
                await asyncio.wait_for(subscription.receive(), 30)
        await asyncio.to_thread(subscription._thread.join)  # type: ignore[union-attr]  # noqa: SLF001
        with pytest.raises(Misconfigured):
            subscription.check_alive()


class Made:
    """What the test's own admin does to the topic."""

    def __init__(self, servers: str, topic: str) -> None:
        self._topic = topic
        self._admin = AdminClient({"bootstrap.servers": servers})

    def delete(self) -> None:
        self._admin.delete_topics([self._topic])[self._topic].result()
        while self._topic in self._admin.list_topics(timeout=10).topics:
            pass

    def anew(self, partitions: int = 1) -> None:
        self.delete()
        self._admin.create_topics([NewTopic(self._topic, partitions, 1)])[self._topic].result()

    def extend(self, partitions: int) -> None:
        self._admin.create_partitions([NewPartitions(self._topic, partitions)])[self._topic].result()
        while len(self._admin.list_topics(timeout=10).topics[self._topic].partitions) < partitions:
            pass

    def retention(self) -> str:
        resource = ConfigResource(ConfigResource.Type.TOPIC, self._topic)
        return str(self._admin.describe_configs([resource])[resource].result()["retention.ms"].value)


async def _take_all(subscription: KafkaSubscription, expected: Sequence[Message]) -> list[Delivery]:
    found: list[Delivery] = []
    async with asyncio.timeout(60):
        while not {each.id for each in expected} <= {each.message.id for each in found}:
            with suppress(Unavailable):
                batch = await subscription.receive()
                await subscription.acknowledge(batch)
                found += batch
    return found


async def _published(publisher: KafkaPublisher, messages: Sequence[Message]) -> Sequence[PublishResult]:
    while True:
        with suppress(Unavailable):
            return await publisher.publish(messages)


async def test_a_topic_made_anew_while_the_service_runs_is_read_from_its_first_event(
    its: KafkaConfig,
) -> None:
    first, second = ([a_message() for _ in range(count)] for count in (31, 60))
    told = RecordedTelemetry()
    async with (
        opened(KafkaSubscription(its, now, told)) as subscription,
        opened(KafkaPublisher(its, LEASE, RecordedTelemetry())) as publisher,
    ):
        await publisher.publish(first)
        before = await _take_all(subscription, first)
        await asyncio.to_thread(Made(its.servers, its.topic).anew)
        answers = await _published(publisher, second)
        after = await _take_all(subscription, second)
        # A publication whose outcome was unknown may be there as well: its repetition comes behind it.
        while not {each.position for each in answers} <= {each.origin.position for each in after}:
            after += await _take_all(subscription, second[-1:])

    assert not {each.origin.position for each in before} & {each.position for each in answers}
    assert told.named("topic was made anew") == [{"topic": its.topic}]


@pytest.mark.parametrize("metadata", ["of another topic", ""])
async def test_offsets_that_do_not_name_this_topic_count_for_nothing(its: KafkaConfig, metadata: str) -> None:
    messages = [a_message() for _ in range(5)]
    async with opened(KafkaPublisher(its, LEASE, RecordedTelemetry())) as publisher:
        await publisher.publish(messages)
        _commit(its, 3, metadata)
        async with opened(KafkaSubscription(its, now, RecordedTelemetry())) as subscription:
            found = await _take_all(subscription, messages)
    assert [each.message for each in found] == messages


async def test_the_lag_believes_no_offset_that_a_foreign_program_set(its: KafkaConfig) -> None:
    lag = KafkaLag(its)
    async with opened(KafkaPublisher(its, LEASE, RecordedTelemetry())) as publisher:
        await publisher.publish([a_message() for _ in range(5)])
        _commit(its, 3, "")
        assert await eventually(partial(_once_known, lag)) == "5"


def _commit(its: KafkaConfig, offset: int, metadata: str) -> None:
    consumer = Consumer({"bootstrap.servers": its.servers, "group.id": its.group})
    end = TopicPartition(its.topic, 0, offset, metadata)
    servers.until(lambda: _is_kept(consumer, end), "the group's coordinator")
    consumer.close()


def _is_kept(consumer: Consumer, end: TopicPartition) -> bool:
    with suppress(KafkaException):  # a new cluster has yet to choose who knows of a group
        return bool(consumer.commit(offsets=[end], asynchronous=False))
    return False


async def test_a_deleted_topic_is_made_again_as_at_the_start(its: KafkaConfig) -> None:
    lease = 3.0
    async with opened(KafkaPublisher(its, lease, RecordedTelemetry())) as publisher:
        await publisher.publish([a_message()])
        made = Made(its.servers, its.topic)
        await asyncio.to_thread(made.delete)
        with pytest.raises(Unavailable):
            await publisher.publish([a_message()])
        await publisher.publish([a_message()])
        assert await asyncio.to_thread(made.retention) == "-1"


async def test_a_weaker_topic_made_anew_by_another_is_warned_of(its: KafkaConfig) -> None:
    noticed = RecordedTelemetry()
    async with opened(KafkaPublisher(its, LEASE, noticed)) as publisher:
        await publisher.publish([a_message()])
        assert not noticed.named("topic is weaker than asked for")
        await asyncio.to_thread(Made(its.servers, its.topic).anew)
        for _ in range(2):
            await _published(publisher, [a_message()])
        assert noticed.named("topic is weaker than asked for")


@pytest.mark.parametrize("lease", [0.1, 0.5, MIN_LEASE - 0.01])
async def test_a_lease_too_short_to_publish_is_refused_at_the_start(its: KafkaConfig, lease: float) -> None:
    with pytest.raises(Misconfigured, match=rf"CLINIC_LEASE=.* at least {MIN_LEASE}"):
        await KafkaPublisher(its, lease, RecordedTelemetry()).open()


async def test_the_shortest_lease_publishes(its: KafkaConfig) -> None:
    async with opened(KafkaPublisher(its, LEASE, RecordedTelemetry())) as publisher:
        await _published(publisher, [a_message()])  # a topic that was just made has no leader yet
    async with (
        opened(KafkaPublisher(its, MIN_LEASE, RecordedTelemetry())) as publisher,
        asyncio.timeout(60),  # at the first try; on a machine that is slow, at a later one
    ):
        await _published(publisher, [a_message()])


async def _received_in_the_end(subscription: KafkaSubscription) -> Sequence[Delivery]:
    """What comes once the group has its coordinator: a new cluster may say "not now" first."""
    async with asyncio.timeout(60):
        while True:
            with suppress(Unavailable):
                return await subscription.receive()


async def test_a_time_beyond_all_dates_is_the_last_one(its: KafkaConfig) -> None:
    topic = NewTopic(its.topic, 1, 1, config={"message.timestamp.after.max.ms": str(2**63 - 1)})
    admin = AdminClient({"bootstrap.servers": its.servers})
    admin.create_topics([topic])[its.topic].result()
    foreign = Producer({"bootstrap.servers": its.servers})
    foreign.produce(its.topic, value=b"?", timestamp=2**62)
    foreign.flush(20)

    async with opened(KafkaSubscription(its, now, RecordedTelemetry())) as subscription:
        (delivery,) = await _received_in_the_end(subscription)

    assert delivery.origin.published_at.year == 9999


async def test_acknowledging_to_a_stopped_broker_is_unavailable_and_closing_does_not_wait(
    its: KafkaConfig,
) -> None:
    with own_kafka() as broker:
        its = replace(its, servers=broker.address)
        subscription = KafkaSubscription(its, now, RecordedTelemetry())
        async with opened(KafkaPublisher(its, LEASE, RecordedTelemetry())) as publisher:
            await subscription.open()
            await publisher.publish([a_message()])
            for _ in range(5):  # on a busy machine the group may take the batch away, and deliver it again
                batch = await _received_in_the_end(subscription)
                async with broker.away("frozen"):
                    if await _is_unavailable(subscription.acknowledge(batch)):
                        async with asyncio.timeout(20):
                            await subscription.close()
                        return
            pytest.fail("what was never acknowledged came back each time, and nobody was told")


async def _is_unavailable(work: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(40):
            await work
    except Unavailable:
        return True
    return False


async def test_a_silent_broker_is_reported_though_nothing_is_to_be_received(its: KafkaConfig) -> None:
    with own_kafka() as broker:
        its = replace(its, servers=broker.address)
        async with (
            opened(KafkaSubscription(its, now, RecordedTelemetry())) as subscription,
            broker.away("stopped"),
        ):
            async with asyncio.timeout(40):
                with pytest.raises(Unavailable, match="Kafka does not answer"):
                    await subscription.receive()


@pytest.mark.parametrize("kind", [KafkaPublisher, KafkaSubscription])
async def test_options_that_would_break_a_promise_are_refused_by_name(its: KafkaConfig, kind: Any) -> None:
    broken = replace(its, options={"acks": "1", "auto.offset.reset": "latest"})
    subject = (
        KafkaPublisher(broken, LEASE, RecordedTelemetry())
        if kind is KafkaPublisher
        else KafkaSubscription(broken, now, RecordedTelemetry())
    )
    with pytest.raises(Misconfigured, match=r"acks|auto\.offset\.reset"):
        async with opened(subject):
            await subject.receive() if isinstance(subject, KafkaSubscription) else None


async def test_a_value_that_the_client_does_not_take_is_named_and_not_repeated(its: KafkaConfig) -> None:
    with pytest.raises(Misconfigured, match=r"does not take debug") as refused:
        await KafkaPublisher(replace(its, options={"debug": "hunter2"}), LEASE, RecordedTelemetry()).open()
    assert "hunter2" not in str(refused.value)


async def test_a_rebalance_while_a_batch_is_held_neither_loses_a_message_nor_stalls(its: KafkaConfig) -> None:
    its = replace(its, partitions=4)
    first, second = (KafkaSubscription(its, now, RecordedTelemetry()) for _ in range(2))
    messages = [a_message() for _ in range(40)]
    async with opened(KafkaPublisher(its, LEASE, RecordedTelemetry())) as publisher, opened(first):
        await publisher.publish(messages)
        held = await _received_in_the_end(first)
        async with opened(second):
            # Not before the first has let go of some partitions, with the batch in its hands.
            taken_over = await _received_in_the_end(second)
            await first.acknowledge(held)
            await second.acknowledge(taken_over)
            seen = {each.message.id for each in (*held, *taken_over)}
            while seen != {each.id for each in messages}:
                batch, subscription = await _first_to_receive(first, second)
                seen |= {each.message.id for each in batch}
                await subscription.acknowledge(batch)


async def _first_to_receive(*members: KafkaSubscription) -> tuple[Sequence[Delivery], KafkaSubscription]:
    receiving = {asyncio.create_task(each.receive()): each for each in members}
    done_ones, waiting = await asyncio.wait(receiving, return_when=asyncio.FIRST_COMPLETED)
    for each in waiting:
        each.cancel()
    done = done_ones.pop()
    return done.result(), receiving[done]


async def test_partitions_that_are_added_are_soon_read(
    its: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert member.PARTITIONS_KNOWN_WITHIN <= 10
    monkeypatch.setattr(member, "PARTITIONS_KNOWN_WITHIN", 0.5)
    async with opened(KafkaSubscription(its, now, RecordedTelemetry())) as subscription:
        await asyncio.to_thread(Made(its.servers, its.topic).extend, 2)
        foreign = Producer({"bootstrap.servers": its.servers})
        foreign.produce(its.topic, value=b"?", partition=1)
        foreign.flush(20)

        (delivery,) = await _received_in_the_end(subscription)

        assert delivery.origin.position.endswith("/1/0")


async def test_nothing_is_published_at_once(its: KafkaConfig) -> None:
    async with opened(KafkaPublisher(its, LEASE, RecordedTelemetry())) as publisher:
        assert await publisher.publish([]) == []


async def test_the_lag_is_what_a_group_has_not_acknowledged_in_all_partitions(its: KafkaConfig) -> None:
    its = replace(its, partitions=3)
    lag = KafkaLag(its)
    publisher = KafkaPublisher(its, LEASE, RecordedTelemetry())
    async with opened(publisher), opened(KafkaSubscription(its, now, RecordedTelemetry())) as subscription:
        assert await eventually(partial(_once_known, lag)) == "0"
        await publisher.publish([a_message() for _ in range(20)])
        assert await lag.ask() == 20
        left = 20
        while left:
            batch = await _received_in_the_end(subscription)
            assert await lag.ask() == left
            await subscription.acknowledge(batch)
            left -= len(batch)
            assert await lag.ask() == left


async def test_the_lag_shows_what_a_foreign_transaction_holds_back(its: KafkaConfig) -> None:
    foreign = Producer({"bootstrap.servers": its.servers, "transactional.id": its.topic, "log_level": 0})
    lag, message = KafkaLag(its), a_message()
    publisher = KafkaPublisher(its, LEASE, RecordedTelemetry())
    async with opened(publisher), opened(KafkaSubscription(its, now, RecordedTelemetry())) as subscription:
        await asyncio.to_thread(foreign.init_transactions, 30)
        foreign.begin_transaction()
        foreign.produce(its.topic, value=b"?", partition=0)
        await asyncio.to_thread(foreign.flush, 30)
        await publisher.publish([message])
        assert await eventually(partial(_once_known, lag)) == "2"

        await asyncio.to_thread(foreign.abort_transaction, 30)

        (delivery,) = await _received_in_the_end(subscription)
        assert delivery.message == message


async def _once_known(lag: KafkaLag) -> str | None:
    """A new cluster has yet to choose who knows of a group."""
    with suppress(KafkaException):
        return str(await lag.ask())
    return None


async def test_the_lag_is_soon_unknown_where_no_broker_answers(its: KafkaConfig) -> None:
    with pytest.raises(KafkaException):
        await KafkaLag(replace(its, servers="127.0.0.1:1")).ask()


ASKS_AT_ONCE = """
import asyncio, sys
from contextlib import suppress
from confluent_kafka import KafkaException
from msgspec.json import decode
from clinic.adapters.kafka.cluster import KafkaConfig, Topic
from clinic.entrypoints.technologies.kafka_lag import KafkaLag
kafka = decode(sys.argv[1], type=KafkaConfig)
Topic(kafka, print).make()
with suppress(KafkaException):
    asyncio.run(KafkaLag(kafka).ask())
print("goes on")
"""


def test_asking_a_cluster_that_has_no_groups_yet_for_the_lag_ends_nobody() -> None:
    with servers.kafka() as address:
        command = [sys.executable, "-c", ASKS_AT_ONCE, json.encode(its_own(address)).decode()]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)

    assert (done.returncode, done.stdout) == (0, b"goes on\n"), done.stderr
