"""Failpoints: both sides of each call of a port on an event's way. Files arm them: a file outlives kill -9 of
either end.
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import msgspec
from msgspec import Struct
from support.processes import eventually

from campaign.below import A_FAULT, Below, Unforeseen
from campaign.broken_log import BROKEN, break_log
from clinic.domain.errors import Refused, Unavailable

FailpointAction = Literal[
    "kill",
    "freeze",
    "error",
    "refuse",
    "delay",
    "fill",
    "raise",
    "raise-base",
    "cancel",
    "end-thread",
    "end-reader",
    "end-log-writer",
    "log-unwritable",
    "log-reader-gone",
    "log-reader-stuck",
]
LOOP_ENDS: Final = ("raise", "raise-base", "cancel")
"""What no loop behind a service is prepared for: it is over then, and the service has to end with it."""
THREAD_ENDS: Final = ("end-thread", "end-reader")
"""The same of a thread."""
WATCHER_ENDS: Final = "end-log-writer"
"""The end of a thread that nothing depends on: the service goes on, and the thread is replaced."""

CALLS: Final[Mapping[str, tuple[str, ...]]] = {
    "appointment": ("add", "reserve", "save", "hand-over", "publish", "confirm"),
    "financial": ("delivery", "charge", "dead-letter", "acknowledge"),
}
FAILPOINTS: Final = {
    context: [f"{call}.{side}" for call, side in product(calls, ("before", "after"))]
    for context, calls in CALLS.items()
}


class Armed(Struct, frozen=True):
    """What happens to the next call that reaches a point."""

    number: int
    action: FailpointAction
    seconds: float = 0


_armed = msgspec.json.Decoder(Armed)


class Failpoints:
    """A service's view: nothing but a look for a file, unless a failpoint is armed."""

    def __init__(self, folder: Path, service: str) -> None:
        self.folder = folder
        self._service = service

    async def reach(self, point: str, below: Below) -> None:
        """Do what this failpoint is armed with. Only one caller of all processes does."""
        armed = self._claimed(point)
        if armed is None:
            return
        if armed.action in ("kill", "freeze"):
            os.kill(os.getpid(), signal.SIGKILL if armed.action == "kill" else signal.SIGSTOP)
        elif armed.action == "delay":
            await asyncio.sleep(armed.seconds)
        elif armed.action == "fill":
            await below.fill(armed.seconds)
        elif armed.action in BROKEN:
            break_log(armed.action, self.folder / "mended" / str(armed.number))
        else:
            if armed.action in (*LOOP_ENDS, *THREAD_ENDS):
                (self.folder / "doomed" / str(os.getpid())).write_text(armed.action)
            if armed.action in (*THREAD_ENDS, WATCHER_ENDS):
                below.end_thread(armed.action, point)
            else:
                await self._raise(armed.action, point)

    async def _raise(self, action: FailpointAction, point: str) -> NoReturn:
        if action == "refuse":
            raise Refused(f"refused at {point}: {A_FAULT}")
        if action == "raise":
            raise RuntimeError(f"raised at {point}: {A_FAULT}")
        if action == "raise-base":
            raise Unforeseen(f"raised at {point}: {A_FAULT}")
        if action == "cancel":
            raise asyncio.CancelledError(f"cancelled at {point}: {A_FAULT}")
        raise Unavailable(f"no answer at {point}: {A_FAULT}")

    def _claimed(self, point: str) -> Armed | None:
        path = self.folder / "armed" / point
        try:
            armed = _armed.decode(path.read_bytes())
            path.rename(self.folder / "hit" / f"{armed.number}.{self._service}")
        except FileNotFoundError:
            return None
        return armed


class AtFailpoints:
    """An adapter with a failpoint on either side of some of its calls."""

    def __init__(
        self,
        adapter: Any,
        calls: Mapping[str, str],
        failpoints: Failpoints,
        below: Below,
    ) -> None:
        self._adapter = adapter
        self._calls = calls
        self._points = failpoints
        self._below = below

    def __getattr__(self, name: str) -> Any:
        shipped = getattr(self._adapter, name)
        if name not in self._calls:
            return shipped
        point = self._calls[name]

        async def between(*arguments: Any, **options: Any) -> Any:
            await self._points.reach(f"{point}.before", self._below)
            result = await shipped(*arguments, **options)
            await self._points.reach(f"{point}.after", self._below)
            return result

        return between


class Control:
    """The nemesis's view of the failpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("armed", "hit", "post", "tries", "sent", "held", "doomed", "mended"):
            (folder / name).mkdir(parents=True)

    def arm(self, point: str, armed: Armed) -> None:
        put(self.folder / "armed" / point, msgspec.json.encode(armed))

    async def hit(self, number: int, *, within: float) -> str | None:
        """The name of the service that reached the point; None where none did in time."""

        async def found() -> str | None:
            return next((path.suffix[1:] for path in (self.folder / "hit").glob(f"{number}.*")), None)

        with suppress(AssertionError):
            return await eventually(found, within=within)
        return None

    def disarm(self, point: str) -> bool:
        """Whether it was still armed: else somebody has reached it by now."""
        try:
            (self.folder / "armed" / point).unlink()
        except FileNotFoundError:
            return False
        return True

    def mend(self, number: int) -> None:
        """End what was broken by a failpoint that was armed with this number."""
        (self.folder / "mended" / str(number)).touch()

    def is_doomed(self, pid: int) -> bool:
        """Whether the campaign ended a loop or a thread in that process."""
        return (self.folder / "doomed" / str(pid)).exists()

    def dooms(self, *actions: FailpointAction) -> int:
        """In how many processes a loop or a thread was ended so."""
        return sum(path.read_text() in actions for path in (self.folder / "doomed").iterdir())

    def step_clock(self, context: str, seconds: float) -> None:
        """From now on that context's clock is this many seconds ahead, or behind."""
        put(self.folder / f"clock.{context}", str(seconds).encode())


def put(path: Path, content: bytes) -> None:
    """All of it at once: a reader never sees a part."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.rename(path)
