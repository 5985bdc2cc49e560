"""What the stores share: many callers, one write, each caller its own outcome."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, Generic, TypeVar

from clinic.domain.errors import ClinicError

Operation = TypeVar("Operation")
Outcome = TypeVar("Outcome")


class GroupCommit(Generic[Operation, Outcome]):
    """While one write is under way, the next gathers; nobody waits on a timer.

    `write` returns one outcome for each operation, in order; an outcome that is an error is raised to its own
    caller. When `write` itself raises, every caller of the group gets that error: no outcome is known.
    Cancelling a caller leaves the write and the others alone. `sizes` counts the groups of this process.
    """

    sizes: ClassVar[Counter[int]] = Counter()

    def __init__(
        self,
        write: Callable[[Sequence[Operation]], Awaitable[Sequence[Outcome | ClinicError]]],
        limit: int = 1000,
    ) -> None:
        self._write, self._limit = write, limit
        self._gathering: list[tuple[Operation, asyncio.Future[Outcome]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def __call__(self, operation: Operation) -> Outcome:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._gathering.append((operation, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all())
        return await future

    async def _write_all(self) -> None:
        try:
            while self._gathering:
                group, self._gathering = self._gathering[: self._limit], self._gathering[self._limit :]
                self.sizes[len(group)] += 1
                await self._write_group(group)
        finally:
            self._writer = None

    async def _write_group(self, group: Sequence[tuple[Operation, asyncio.Future[Outcome]]]) -> None:
        try:
            outcomes = await self._write([operation for operation, _ in group])
        except Exception as error:  # noqa: BLE001 — whatever it is, every caller has to hear of it
            outcomes = [error] * len(group)  # type: ignore[list-item]
        for (_, future), outcome in zip(group, outcomes, strict=True):
            answer(future, outcome)


def answer(future: asyncio.Future[Outcome], outcome: Outcome | ClinicError) -> None:
    """Give the caller that waits its outcome; it may have gone."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
