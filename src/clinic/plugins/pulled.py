"""What subscriptions share whose server is asked for batches."""

import asyncio
from abc import abstractmethod
from collections.abc import Sequence

from clinic.domain.messaging.messages import Delivery
from clinic.domain.messaging.ports import Subscription


class PulledSubscription(Subscription):
    """One batch is held at a time, handed over again until it is acknowledged, and none is lost on the way.

    A subclass says how to `fetch` and to `confirm`, and calls `drop` when it closes or begins anew.
    """

    _held: Sequence[Delivery] = ()
    _fetching: "asyncio.Task[Sequence[Delivery]] | None" = None
    _has_failed = False

    @abstractmethod
    async def fetch(self, *, wait: bool) -> Sequence[Delivery]:
        """The next batch: wait until there is one, or, if `wait` is false, only as long as an answer takes.

        It is never cancelled by who gives up waiting. Raises `Unavailable`.
        """

    @abstractmethod
    async def confirm(self, held: Sequence[Delivery]) -> None:
        """Tell the server that these are done with: all that is held, or none. Raises `Unavailable`."""

    def drop(self) -> None:
        """Forget what is held or on its way: it comes again."""
        self._held = ()
        if self._fetching and self._fetching is not asyncio.current_task():
            self._fetching.cancel()
            self._fetching = None

    async def receive(self) -> Sequence[Delivery]:
        if not self._held:
            self._fetching = self._fetching or asyncio.create_task(self.fetch(wait=not self._has_failed))
            await asyncio.wait([self._fetching])  # whoever gives up leaves it to the next who waits
            fetched, self._fetching = self._fetching, None
            self._has_failed = fetched.exception() is not None
            self._held = fetched.result()
        return self._held

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        if not batch:
            return
        done = {each.origin.position for each in batch} >= {each.origin.position for each in self._held}
        await self.confirm(self._held if done else ())
        self._held = () if done else self._held
