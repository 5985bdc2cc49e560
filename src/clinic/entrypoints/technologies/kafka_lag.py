"""How far a consumer group is behind, for people who watch: with a client of its own."""

from functools import cached_property
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from clinic.adapters.kafka.cluster import KafkaConfig
from clinic.adapters.threads import in_thread

TIMEOUT: Final = 1.0
"""Seconds for each of the questions: nothing but a scrape waits for the answers."""
END: Final = -1
"""Asked for as a time, it stands for the place behind the newest record."""


class KafkaLag:
    """The group's lag in all partitions of the topic, whichever members have them."""

    def __init__(self, kafka: KafkaConfig) -> None:
        self._kafka = kafka

    async def ask(self) -> int | None:
        """How many records the group has not acknowledged. Raises where nobody says."""
        return await in_thread(self._ask)

    @cached_property
    def _client(self) -> Consumer:
        """A consumer that never subscribes, and so is no member.

        Not the admin client: where a group's coordinator has yet to be found, as on a new cluster, its
        question ends the whole process (librdkafka's issue 5315).
        """
        required = {
            "group.id": self._kafka.group,
            "enable.auto.commit": False,
            # The end of all that is there: an open transaction of anybody's holds back what stands behind it.
            "isolation.level": "read_uncommitted",
        }
        return self._kafka.client(Consumer, required)

    def _ask(self) -> int:
        topic = self._kafka.topic
        known = self._client.list_topics(topic, timeout=TIMEOUT).topics[topic].partitions
        ends = self._client.offsets_for_times(
            [TopicPartition(topic, number, END) for number in known], timeout=TIMEOUT
        )
        acknowledged = self._client.committed(
            [TopicPartition(topic, number) for number in known], timeout=TIMEOUT
        )
        for answer in (*ends, *acknowledged):
            if answer.error:
                raise KafkaException(answer.error)
        # Without metadata, no member of ours has acknowledged it: the group will begin at the first event.
        return sum(
            max(0, end.offset - (at.offset if at.metadata else 0))
            for end, at in zip(ends, acknowledged, strict=True)
        )
