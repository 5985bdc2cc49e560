"""A transport in memory, for both contexts in one process: a log of everything published, and each group's
place in it.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from clinic.adapters import cloudevents
from clinic.domain.messaging.messages import Delivery, Message, Origin, PublishResult
from clinic.domain.messaging.ports import Clock, Publisher, Subscription

BATCH_SIZE = 500


class MemoryLog:
    """What both ends share: the broker, so to say."""

    def __init__(self) -> None:
        self.entries: list[tuple[datetime, Message]] = []
        self.places: dict[str, int] = {}
        self.grown = asyncio.Event()


class MemoryPublisher(Publisher):
    """The way into the log."""

    def __init__(self, log: MemoryLog, clock: Clock) -> None:
        self._log, self._clock = log, clock

    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        now, first = self._clock(), len(self._log.entries)
        self._log.entries.extend((now, message) for message in batch)
        self._log.grown.set()
        self._log.grown = asyncio.Event()
        return [
            PublishResult(message, f"memory/{first + offset}", now) for offset, message in enumerate(batch)
        ]


class MemorySubscription(Subscription):
    """A group's way out of the log; one member a group."""

    def __init__(self, log: MemoryLog, group: str, clock: Clock) -> None:
        self._log, self._group, self._clock = log, group, clock

    async def receive(self) -> Sequence[Delivery]:
        place = self._log.places.setdefault(self._group, 0)
        while len(self._log.entries) <= place:
            await self._log.grown.wait()
        return [
            self._delivery(index) for index in range(place, min(place + BATCH_SIZE, len(self._log.entries)))
        ]

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        last = max(int(delivery.origin.position.removeprefix("memory/")) for delivery in batch)
        self._log.places[self._group] = max(self._log.places[self._group], last + 1)

    def _delivery(self, index: int) -> Delivery:
        published_at, message = self._log.entries[index]
        return Delivery(
            message=message,
            origin=Origin(position=f"memory/{index}", published_at=published_at, received_at=self._clock()),
            key=message.key.encode(),
            headers=tuple(cloudevents.headers(message)),
            value=message.data,
        )
