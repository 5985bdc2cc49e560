"""When Kafka's reports count as kept, as far as no broker can be made to report it at will."""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import Message as Record
from confluent_kafka import Producer

from clinic.adapters.kafka.cluster import KafkaConfig
from clinic.adapters.kafka.publisher import KafkaPublisher, Sending
from clinic.adapters.kafka.subscription import KafkaSubscription
from clinic.domain.errors import Unavailable
from clinic.testing.builders import a_delivery, a_message, now, opened


async def test_a_success_without_an_offset_is_no_proof_that_anything_was_kept() -> None:
    sending = Sending(2)

    sending.report(0, None, Record(topic="topic", partition=0, offset=7))
    sending.report(1, None, Record(topic="topic", partition=0))

    with pytest.raises(Unavailable, match="where events are kept"):
        await sending.outcome


async def test_reports_come_back_in_the_order_of_the_batch() -> None:
    sending = Sending(2)

    sending.report(1, None, Record(topic="topic", partition=0, offset=8))
    sending.report(0, None, Record(topic="topic", partition=0, offset=7))

    assert [record.offset() for record in await sending.outcome] == [7, 8]


class Cluster:
    """The clients that the publisher asks for, of a cluster that says what a test wants."""

    topic, partitions, replication = "topic", 1, 1

    def __init__(self) -> None:
        self.topic_id, self.offset = "first", cast("int | None", 0)
        self.producers = 0
        self._sent: queue.SimpleQueue[Callable[[None, Record], None]] = queue.SimpleQueue()

    def client(self, kind: object, _required: object, **_defaults: object) -> "Cluster":
        self.producers += kind is Producer
        return self

    def list_topics(self, **_: object) -> SimpleNamespace:
        return SimpleNamespace(topics={})

    def create_topics(self, *_: object, **__: object) -> dict[str, Future[None]]:
        return {self.topic: answered(None)}

    def describe_topics(self, *_: object, **__: object) -> dict[str, Future[SimpleNamespace]]:
        return {self.topic: answered(SimpleNamespace(topic_id=self.topic_id))}

    def produce(self, _topic: str, *, on_delivery: Callable[[None, Record], None], **_: object) -> None:
        self._sent.put(on_delivery)

    def poll(self, timeout: float) -> None:
        with suppress(queue.Empty):
            report = self._sent.get(timeout=timeout)
            kept: dict[str, Any] = {} if self.offset is None else {"offset": self.offset}
            report(None, Record(topic=self.topic, partition=0, timestamp=(1, 0), **kept))


def answered(answer: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(answer)
    return future


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def publisher(cluster: Cluster) -> AsyncIterator[KafkaPublisher]:
    kafka = cast("KafkaConfig", cluster)
    async with opened(KafkaPublisher(kafka, 30, lambda *_, **__: None)) as made, asyncio.timeout(10):
        yield made


async def test_after_a_report_without_an_offset_a_new_client_publishes_again(
    cluster: Cluster, publisher: KafkaPublisher
) -> None:
    cluster.offset = None
    with pytest.raises(Unavailable, match="where events are kept"):
        await publisher.publish([a_message()])

    cluster.offset = 7
    (result,) = await publisher.publish([a_message()])

    assert result.position == "topic/first/0/7"
    assert cluster.producers == 2


async def test_in_a_topic_made_anew_a_new_client_publishes_again(
    cluster: Cluster, publisher: KafkaPublisher
) -> None:
    cluster.topic_id = "second"
    with pytest.raises(Unavailable, match="made anew"):
        await publisher.publish([a_message()])

    (result,) = await publisher.publish([a_message()])

    assert result.position == "topic/second/0/0"
    assert cluster.producers == 2


class Client:
    """A producer that takes its time to come and to go: it remembers in which threads that was."""

    def __init__(self, cluster: Cluster, threads: list[threading.Thread]) -> None:
        self.produce, self.poll = cluster.produce, cluster.poll
        self._threads = threads
        threads.append(threading.current_thread())

    def __del__(self) -> None:
        self._threads.append(threading.current_thread())


class Replaced(Cluster):
    def __init__(self) -> None:
        super().__init__()
        self.threads: list[threading.Thread] = []

    def client(self, kind: object, _required: object, **_defaults: object) -> Any:
        return Client(self, self.threads) if kind is Producer else self


@pytest.mark.parametrize("cluster", [Replaced()])
async def test_no_client_comes_or_goes_in_the_event_loop(
    cluster: Replaced, publisher: KafkaPublisher
) -> None:
    cluster.topic_id = "second"
    with pytest.raises(Unavailable, match="made anew"):
        await publisher.publish([a_message()])
    await publisher.publish([a_message()])
    await publisher.close()

    assert len(cluster.threads) == 4, "two came and went"
    assert threading.current_thread() not in cluster.threads


class Unforeseen(threading.Event):
    """What a thread asks in each round, and what ends it."""

    def is_set(self) -> bool:
        raise GeneratorExit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_polling_thread_that_has_ended_is_no_outage_that_passes(publisher: KafkaPublisher) -> None:
    publisher.check_alive()
    assert publisher._thread  # noqa: SLF001
    publisher._closing = Unforeseen()  # noqa: SLF001
    await asyncio.to_thread(publisher._thread.join)  # noqa: SLF001
    with pytest.raises(RuntimeError, match="the thread that hears from Kafka has ended"):
        publisher.check_alive()
    with pytest.raises(RuntimeError, match="has ended"):
        await publisher.publish([a_message()])


async def test_a_receiving_thread_that_has_ended_is_no_outage_that_passes(cluster: Cluster) -> None:
    subscription = KafkaSubscription(cast("KafkaConfig", cluster), now, lambda *_, **__: None)
    subscription._thread = threading.Thread(target=lambda: None)  # noqa: SLF001
    subscription._thread.start()  # noqa: SLF001
    await asyncio.to_thread(subscription._thread.join)  # noqa: SLF001
    for call in (subscription.receive(), subscription.acknowledge([a_delivery(a_message())])):
        with pytest.raises(RuntimeError, match="the thread that receives from Kafka has ended"):
            await call
