"""One look a second, however many watch: what they see is asked for once, for all of them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, Generic, TypeVar

from clinic.domain.errors import Unavailable
from clinic.domain.messaging.ports import Monotonic, Sleep
from clinic.entrypoints.service import Lifecycle
from clinic.entrypoints.telemetry import LoggingTelemetry

MAX_WATCHERS: Final = 50
INTERVAL: Final = 1.0
FRESH: Final = 0.9
"""Seconds that a look is good for: less than the interval, or a look would be left out now and then."""

T = TypeVar("T")


class Watch(Generic[T]):
    """Looks while somebody watches, and ends at once when the service is asked to."""

    def __init__(
        self,
        look: Callable[[], Awaitable[T]],
        lifecycle: Lifecycle,
        telemetry: LoggingTelemetry,
        sleep: Sleep = asyncio.sleep,
        monotonic: Monotonic = time.monotonic,
    ) -> None:
        self._look = look
        self._sleep, self._monotonic = sleep, monotonic
        self._lifecycle, self._telemetry = lifecycle, telemetry
        self._one_at_a_time = asyncio.Lock()
        self._last: tuple[float, T] | None = None
        self._next: asyncio.Future[T | None]
        self._looking: asyncio.Task[None] | None = None
        self.watchers = 0

    async def now(self) -> T:
        """What there is to see: the last look, if it is of this second."""
        async with self._one_at_a_time:
            if self._last is None or self._monotonic() - self._last[0] >= FRESH:
                began = self._monotonic()
                self._last = began, await self._look()
            return self._last[1]

    def check_free(self) -> None:
        """Raise `Unavailable` where as many watch as may."""
        if self.watchers >= MAX_WATCHERS:
            raise Unavailable(
                f"{MAX_WATCHERS} pages are live already; this one shows what was when it was opened"
            )

    async def follow(self) -> AsyncGenerator[T, None]:
        """Each look from now on; one that comes while another is being handled is left out."""
        if self.watchers >= MAX_WATCHERS:
            return
        self.watchers += 1
        try:
            if self._looking is None:
                self._next = asyncio.get_running_loop().create_future()
                self._looking = asyncio.create_task(self._run())
            while (seen := await asyncio.shield(self._next)) is not None:
                yield seen
        finally:
            self.watchers -= 1

    async def _run(self) -> None:
        try:
            await self._lifecycle.unless_stopping(self._look_on())
        except Unavailable:
            pass  # the service is stopping
        except Exception as error:  # noqa: BLE001 — a defect ends these streams; the browsers open others
            self._telemetry.failed("unforeseen", error)
        finally:
            self._looking = None
            self._next.set_result(None)

    async def _look_on(self) -> None:
        while self.watchers:
            seen = await self.now()
            shown, self._next = self._next, asyncio.get_running_loop().create_future()
            shown.set_result(seen)
            await self._sleep(INTERVAL)
