"""What the stores share: many callers, one write, each caller its own outcome."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, Generic, TypeVar

from clinic.domain.errors import ClinicError, Unavailable

Operation = TypeVar("Operation")
Outcome = TypeVar("Outcome")


class GroupCommit(Generic[Operation, Outcome]):
    """While writes are under way, the next gathers; nobody waits on a timer.

    `write` returns one outcome for each operation, in order; an outcome that is an error is raised to its own
    caller. When `write` itself raises, every caller of the group gets that error: no outcome is known.
    Cancelling a caller leaves the write and the others alone. While fewer than `beside` operations are under
    way, the next write begins beside them; where that is more than one, also before the callers of the last
    one go on. A caller gets `Unavailable` after `timeout` seconds. `sizes` counts this process's groups.
    """

    sizes: ClassVar[Counter[int]] = Counter()

    def __init__(
        self,
        write: Callable[[Sequence[Operation]], Awaitable[Sequence[Outcome | ClinicError]]],
        limit: int = 1000,
        beside: int = 1,
        timeout: float = 60,
    ) -> None:
        self._write, self._limit = write, limit
        self._beside, self._timeout = beside, timeout
        self._gathering: list[tuple[Operation, asyncio.Future[Outcome]]] = []
        self._writing: dict[asyncio.Task[None], int] = {}

    async def __call__(self, operation: Operation) -> Outcome:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._gathering.append((operation, future))
        if len(self._gathering) == 1:
            loop.call_soon(self._begin)  # who else calls at this moment belongs to the same group
        late = Unavailable(f"the store does not answer within {self._timeout:g} s")
        timer = loop.call_later(self._timeout, answer, future, late)
        try:
            return await future
        finally:
            timer.cancel()

    def _begin(self, ended: int = 0) -> None:
        if self._gathering and sum(self._writing.values()) - ended < self._beside:
            group, self._gathering = self._gathering[: self._limit], self._gathering[self._limit :]
            self.sizes[len(group)] += 1
            writing = asyncio.create_task(self._write_group(group))
            self._writing[writing] = len(group)
            writing.add_done_callback(self._end)

    def _end(self, writing: asyncio.Task[None]) -> None:
        del self._writing[writing]
        if not writing.cancelled():
            self._begin()

    async def _write_group(self, group: Sequence[tuple[Operation, asyncio.Future[Outcome]]]) -> None:
        ended = Unavailable("the write was ended before its outcome was known")
        outcomes: Sequence[Outcome | Exception] = [ended] * len(group)
        try:
            outcomes = await self._write([operation for operation, _ in group])
        except Exception as error:  # noqa: BLE001 — whatever it is, every caller has to hear of it
            outcomes = [error] * len(group)
        else:
            if self._beside > 1:  # a server works while this process answers; a thread would only compete
                self._begin(ended=len(group))
        finally:  # also where a panic of a library ends it, which is no `Exception`
            for (_, future), outcome in zip(group, outcomes, strict=True):
                answer(future, outcome)


def answer(future: asyncio.Future[Outcome], outcome: Outcome | BaseException) -> None:
    """Give the caller that waits its outcome; it may have gone."""
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
