"""How far a consumer group is behind, for people who watch: with a client of its own."""

import asyncio
from functools import cached_property
from typing import Final

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from clinic.adapters.kafka.cluster import KafkaConfig
from clinic.domain.errors import Unavailable

TIMEOUT: Final = 1.0
"""Seconds for each of the questions: nothing but a scrape waits for the answers."""


class KafkaLag:
    """The group's lag in all partitions of the topic, whichever members have them."""

    def __init__(self, kafka: KafkaConfig) -> None:
        self._kafka = kafka

    async def ask(self) -> int | None:
        """How many records the group has not acknowledged. Raises where nobody says."""
        return await asyncio.to_thread(self._ask)

    @cached_property
    def _admin(self) -> AdminClient:
        return self._kafka.client(AdminClient, {})

    def _ask(self) -> int:
        topic = self._kafka.topic
        known = self._admin.list_topics(topic, timeout=TIMEOUT).topics[topic].partitions
        partitions = [TopicPartition(topic, number) for number in known]
        newest = {partition: OffsetSpec.latest() for partition in partitions}  # type: ignore[no-untyped-call]
        ends = self._admin.list_offsets(newest, request_timeout=TIMEOUT)
        asked = [ConsumerGroupTopicPartitions(self._kafka.group, partitions)]
        (group,) = self._admin.list_consumer_group_offsets(asked, request_timeout=TIMEOUT).values()
        acknowledged = {at: at.offset for at in group.result().topic_partitions or ()}
        found = {at: end.result().offset for at, end in ends.items()}
        if min(found.values()) < 0:  # how the client says that no broker has answered in time
            raise Unavailable(f"Kafka does not say where {topic} ends")
        # Where nothing is acknowledged yet, the offset is negative.
        return sum(max(0, end - max(0, acknowledged[at])) for at, end in found.items())
