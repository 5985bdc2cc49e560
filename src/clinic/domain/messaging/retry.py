"""How everything is retried: growing pauses, work that runs to its end, a batch halved until it works."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import TypeVar

from clinic.domain.errors import NotNow, Refused
from clinic.domain.messaging.ports import Jitter, Monotonic

T = TypeVar("T")

STALLED_AFTER = 10.0
"""Seconds after which an attempt that has not ended counts as a problem: nothing fails, and nothing moves."""


def backoff(jitter: Jitter, first: float = 0.05, longest: float = 5.0) -> Iterator[float]:
    """Seconds to wait before each next try: doubling, with jitter that keeps waiters apart."""
    longest_now = first
    while True:
        yield jitter(longest_now / 2, longest_now)
        longest_now = min(longest_now * 2, longest)


async def run_to_completion(work: Coroutine[object, object, T]) -> T:
    """Run the work to its end even when cancelled meanwhile; a second cancellation ends it."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
        raise


async def bisect_refused(
    batch: Sequence[T], do: Callable[[Sequence[T]], Awaitable[None]]
) -> list[tuple[T, Refused]]:
    """Do the whole batch at once; if it is refused, halve it. Returns each refused item with its reason."""
    try:
        await do(batch)
    except Refused as reason:
        if len(batch) == 1:
            return [(batch[0], reason)]
        middle = len(batch) // 2
        return await bisect_refused(batch[:middle], do) + await bisect_refused(batch[middle:], do)
    return []


class LastFailure:
    """What failed last, in a sentence, until something succeeds: time alone does not end it.

    `with` it around an attempt: one that does not end is a failure, too, for as long as it lasts.
    """

    def __init__(self, monotonic: Monotonic) -> None:
        self._monotonic = monotonic
        self._reason = ""
        self._began: float | None = None

    def __enter__(self) -> None:
        self._began = self._monotonic()

    def __exit__(self, *_: object) -> None:
        self._began = None

    def record(self, reason: NotNow) -> None:
        self._reason = str(reason) or type(reason).__name__

    def clear(self) -> None:
        self._reason = ""

    def __str__(self) -> str:
        if self._began is not None and (seconds := self._monotonic() - self._began) > STALLED_AFTER:
            return f"the attempt under way has not ended for {seconds:.0f} s"
        return self._reason
