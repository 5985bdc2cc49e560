"""A transport in memory, for both contexts in one process: a log, and each group's offset in it."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from secrets import token_hex

from clinic.adapters import cloudevents
from clinic.domain.messaging.messages import Delivery, Message, Origin, PublishResult
from clinic.domain.messaging.ports import Clock, Publisher, Subscription

BATCH_SIZE = 500


class MemoryLog:
    """What both ends share, as they would a broker. Its id is in each position."""

    def __init__(self) -> None:
        self.id = token_hex(8)
        self.entries: list[tuple[datetime, Message]] = []
        self.offsets: dict[str, int] = {}
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
        positions = [f"{self._log.id}/{index}" for index in range(first, len(self._log.entries))]
        return [PublishResult(*kept, now) for kept in zip(batch, positions, strict=True)]


class MemorySubscription(Subscription):
    """A group's way out of the log."""

    def __init__(self, log: MemoryLog, group: str, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._group = group

    async def receive(self) -> Sequence[Delivery]:
        offset = self._log.offsets.setdefault(self._group, 0)
        while len(self._log.entries) <= offset:
            await self._log.grown.wait()
        end = min(offset + BATCH_SIZE, len(self._log.entries))
        return [self._delivery(index) for index in range(offset, end)]

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        positions = [delivery.origin.position.partition("/") for delivery in batch]
        next_ = max((int(index) + 1 for log, _, index in positions if log == self._log.id), default=0)
        self._log.offsets[self._group] = max(self._log.offsets.get(self._group, 0), next_)

    def _delivery(self, index: int) -> Delivery:
        published_at, message = self._log.entries[index]
        position = f"{self._log.id}/{index}"
        origin = Origin(position=position, published_at=published_at, received_at=self._clock())
        return cloudevents.delivery(message.key, tuple(cloudevents.headers(message)), message.data, origin)
