"""What the stores of a single process share: which unpublished events a relay holds, and until when."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime

from clinic.domain.messaging.messages import ClaimedMessage, Message
from clinic.domain.messaging.ports import Monotonic

MAX_WAIT = 3.0
"""Seconds between two looks for what another process has put there, such as an operator's command."""


class Leases:
    """Hands each unpublished event to one caller for `seconds`, waiting while there is none.

    Leases live in memory: they end with the process, and so does the relay that held them.
    """

    def __init__(self, seconds: float, monotonic: Monotonic) -> None:
        self._seconds = seconds
        self._monotonic = monotonic
        self._until: dict[str, float] = {}
        self._saved = asyncio.Event()

    def wake(self) -> None:
        """Something was saved, or may have been."""
        self._saved.set()

    def release(self, ids: Iterable[str]) -> None:
        """These events are published."""
        for id_ in ids:
            self._until.pop(id_, None)

    async def claim(
        self, unpublished: Callable[[int], Awaitable[Sequence[tuple[datetime, Message]]]], limit: int
    ) -> Sequence[ClaimedMessage]:
        """Up to `limit` events that nobody holds; `unpublished(n)` returns the n oldest with their times."""
        while True:
            self._saved.clear()
            now = self._monotonic()
            self._until = {id_: until for id_, until in self._until.items() if until > now}
            oldest = await unpublished(limit + len(self._until))
            free = [saved for saved in oldest if saved[1].id not in self._until][:limit]
            if free:
                until = now + self._seconds
                self._until.update({message.id: until for _, message in free})
                return [ClaimedMessage(message, saved_at, until) for saved_at, message in free]
            await self._wait()

    async def _wait(self) -> None:
        sweep = min(self._until.values(), default=float("inf")) - self._monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.001, min(sweep, self._seconds, MAX_WAIT))):
                await self._saved.wait()
