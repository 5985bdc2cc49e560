"""The Kafka transport keeps every promise, with both protocols of its consumer groups."""

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import pytest
from builders import Noticed, now
from contracts.transports import Ends, TransportContract

from clinic.adapters.kafka_cluster import Kafka
from clinic.adapters.kafka_publisher import KafkaPublisher
from clinic.adapters.kafka_subscription import KafkaSubscription

LEASE = 20.0


class TestKafkaTransport(TransportContract):
    patience = 30
    largest = 900 * 1024
    servers: ClassVar[str] = ""
    protocol: ClassVar[str] = "classic"

    @pytest.fixture(autouse=True, params=["classic", "consumer"])
    def broker(self, kafka: str, request: pytest.FixtureRequest) -> None:
        type(self).servers, type(self).protocol = kafka, request.param

    @pytest.fixture
    def where(self) -> Path:
        return Path(f"test-{uuid4().hex}")

    def topic(self, where: Path, group: str) -> Kafka:
        return Kafka(servers=self.servers, topic=where.name, group=group, partitions=3, replication=1, protocol=self.protocol, options={})

    @asynccontextmanager
    async def opened(self, where: Path) -> AsyncIterator[Ends]:
        publisher = KafkaPublisher(self.topic(where, "none"), LEASE, Noticed())
        await publisher.open()
        try:
            yield Ends(publisher, functools.partial(self.subscribed, where))
        finally:
            await publisher.close()

    @asynccontextmanager
    async def subscribed(self, where: Path, group: str) -> AsyncIterator[KafkaSubscription]:
        subscription = KafkaSubscription(self.topic(where, f"{where.name}-{group}"), now, Noticed())
        await subscription.open()
        try:
            yield subscription
        finally:
            await subscription.close()

    @asynccontextmanager
    async def unanswering(self, where: Path) -> AsyncIterator[Ends]:
        publisher = KafkaPublisher(self.topic(where, "none"), LEASE, Noticed())
        subscription = KafkaSubscription(self.topic(where, "none"), now, Noticed())

        @asynccontextmanager
        async def subscribe(_: str) -> AsyncIterator[KafkaSubscription]:
            yield subscription

        yield Ends(publisher, subscribe)
