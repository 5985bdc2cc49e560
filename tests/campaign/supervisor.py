"""Starts a service again when it has ended, as an operator's supervisor would."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from signal import SIGCONT, SIGKILL, SIGSTOP, Signals
from time import monotonic

import httpx
from support.processes import ENDS_TIMEOUT, Service, eventually

LOOK_INTERVAL = 0.02
CHANGES = {
    "CLINIC_HOURLY_PRICE": ("200.00", "133.33", "99.99", "0.01", "12345.67"),
    "CLINIC_PRICING": ("hours-begun", "whole-hours", "pro-rata", "pro-rata"),
}
"""What somebody sets otherwise before a restart; pro-rata most often, as there is something to round."""


class DidNotComeBack(Exception):
    """A service that does not answer, or does not end."""


class Supervisor:
    """Keeps one service running, with some settings changed at each restart, but for the `fixed` ones.

    `up` is set while it answers; `recoveries` are the seconds from an end to the next answer. `is_doomed`
    says whether a process has to end by itself.
    """

    def __init__(
        self, service: Service, rng: random.Random, fixed: Collection[str], is_doomed: Callable[[int], bool]
    ) -> None:
        self.service = service
        self._rng = rng
        self._is_doomed = is_doomed
        self.up = asyncio.Event()
        self.recoveries: list[float] = []
        self.ends: list[int] = []
        """The exit codes of a service that was up, and that nobody asked to end, nor killed."""
        self._kept_down = self._asked = False
        self._changes = {name: values for name, values in CHANGES.items() if name not in fixed}

    async def run(self) -> None:
        """Never returns; cancel it."""
        async with httpx.AsyncClient(base_url=self.service.url, trust_env=False, timeout=2) as http:
            while True:
                if self.service.exit_code is not None and not self._kept_down:
                    await self._start_again(http)
                await asyncio.sleep(LOOK_INTERVAL)

    async def _start_again(self, http: httpx.AsyncClient) -> None:
        ended, was_up = monotonic(), self.up.is_set()
        self.up.clear()
        if (
            was_up
            and not self._asked
            and self.service.exit_code != -SIGKILL
            and not self._is_doomed(self.service.pid)
        ):  # without its servers it does not even start
            self.ends.append(self.service.exit_code or 0)
        self._asked = False
        await asyncio.sleep(self._rng.uniform(0.0, 0.2))
        if self._kept_down:
            return
        self.service.environment |= {name: self._rng.choice(values) for name, values in self._changes.items()}
        self.service.start()
        while self.service.exit_code is None:
            with suppress(httpx.TransportError):
                if (await http.get("/health/live")).is_success:
                    self.recoveries.append(monotonic() - ended)
                    self.up.set()
                    return
            await asyncio.sleep(LOOK_INTERVAL)

    @asynccontextmanager
    async def kept_down(self) -> AsyncIterator[None]:
        """Inside, it has ended as asked to, and stays down."""
        self._kept_down = self._asked = True
        self.up.clear()
        try:
            with suppress(ProcessLookupError):
                await self.service.stopped()
            yield
        finally:
            self._kept_down = False

    def kill(self) -> None:
        self._send(SIGKILL)

    def freeze(self) -> None:
        self._send(SIGSTOP)

    def resume(self) -> None:
        self._send(SIGCONT)

    def _send(self, number: Signals) -> None:
        if self.service.exit_code is None:
            self.service.send(number)

    async def back(self, *, within: float) -> None:
        """Return once it answers. Raises `DidNotComeBack`."""
        with self._missed_after(within):
            async with asyncio.timeout(within):  # not `wait_for`: Python 3.11's may swallow a cancellation
                await self.up.wait()

    async def over(self, *, within: float) -> None:
        """Return once no doomed process runs any more. Raises `DidNotComeBack`."""

        async def is_over() -> bool:
            return self.service.exit_code is not None or not self._is_doomed(self.service.pid)

        try:
            await eventually(is_over, within=within)
        except AssertionError:
            raise DidNotComeBack(
                f"{self.service.name} still runs {within:.0f} s after a loop or thread behind it ended"
            ) from None
        await asyncio.sleep(2 * LOOK_INTERVAL)  # until `run` has seen it

    async def answers(self) -> bool:
        """Whether it says that it lives."""
        async with httpx.AsyncClient(base_url=self.service.url, trust_env=False, timeout=2) as http:
            with suppress(httpx.TransportError):
                return (await http.get("/health/live")).is_success
        return False

    async def ready(self, *, within: float) -> None:
        """Return once it says that it is ready, whatever it has to be started again for meanwhile. Raises
        `DidNotComeBack`.
        """
        with self._missed_after(within):
            async with asyncio.timeout(within):
                while True:
                    await self.up.wait()
                    with suppress(AssertionError):  # it has just ended
                        return await self.service.ready(within=within)
                    await asyncio.sleep(LOOK_INTERVAL)

    @contextmanager
    def _missed_after(self, seconds: float) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise DidNotComeBack(f"{self.service.name} is not there after {seconds:.0f} s") from None

    async def ended(self) -> int | str:
        """Ask it to end for good; its exit code, or what it did instead."""
        if self.service.exit_code is not None:
            return self.service.exit_code
        try:
            return await self.service.stopped()
        except AssertionError:
            self.service.clean_up()
            return f"did not end within {ENDS_TIMEOUT:.0f} s of being asked to"
