"""Carries out the plan: arms failpoints, signals processes, takes servers away, and keeps a journal of what
really happened.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from itertools import count

from msgspec import Struct
from support.ledger import History
from support.processes import eventually

from campaign.broken_log import BROKEN
from campaign.failpoints import LOOP_ENDS, THREAD_ENDS, WATCHER_ENDS, Armed, Control
from campaign.messages import ForeignMessages
from campaign.plan import ANY_MOMENT, Fault
from campaign.supervisor import DidNotComeBack, Supervisor

AGAIN_WHILE_IT_RECOVERS = 0.2
"""Of the kills, how many are followed by the next fault at once."""
UP_TIMEOUT = 120.0
PEACE_TIMEOUT = 120.0
"""Seconds after which somebody must have had an answer, whatever is down."""
LAST_BATCH, LONGEST_LAST_BATCH = 1.5, 20.0
"""Seconds that the last batch gathers, at least and at most."""
GATHERED = 24
"""Requests that are acknowledged meanwhile, at the pace until then: a slow machine takes longer."""


class Happened(Struct, frozen=True):
    """A fault that took place, at whom, from when to when in seconds since 1970."""

    fault: Fault
    by: str
    began: float
    ended: float


class Hit:
    """At whom, just now."""

    def __init__(self, by: str) -> None:
        self.by = by
        self.at = time.time()


Action = Callable[[Fault], Awaitable[Hit | None]]
"""Brings a fault about, until it is over; None where it did not come to it."""


class Nemesis:
    """`actions` are those faults that only some stacks have, by the first word of their name.

    Within `over` seconds a service ends once the loop or a thread behind it has ended.
    """

    def __init__(
        self,
        control: Control,
        supervisors: Mapping[str, list[Supervisor]],
        foreign: ForeignMessages,
        actions: Mapping[str, Action],
        history: History,
        rng: random.Random,
        over: float,
    ) -> None:
        self._control = control
        self._began = time.monotonic()
        self._over = over
        self._supervisors = supervisors
        self._foreign = foreign
        self._rng = rng
        self._history = history
        self._actions = dict(actions) | {"send": self._send, "clock": self._step_clock}
        self._numbers = count(1)
        self.journal: list[Happened] = []

    async def run(self, lane: Iterator[Fault], share: float = 0.0) -> None:
        """One fault after the other, until it is cancelled; none while a smaller share of all requests than
        this was acknowledged.
        """
        for fault in lane:
            await self._peace(fault.rest, share)
            for _ in range(2):  # where nobody came by, once more
                if await self._happens(fault):
                    break

    async def _peace(self, requests: int, share: float) -> None:
        """Until so many more were acknowledged, and of all that share. Raises `DidNotComeBack` where none is
        for long.
        """
        then = self._history.count("acknowledged") + requests

        async def is_over() -> bool:
            return self._history.count("acknowledged") >= then and self._history.share >= share

        while not await is_over():
            before = self._history.count("acknowledged")
            with suppress(AssertionError):
                await eventually(is_over, within=PEACE_TIMEOUT)
            if self._history.count("acknowledged") == before:
                raise DidNotComeBack(f"no request was acknowledged within {PEACE_TIMEOUT:.0f} s")

    async def gather_last_batches(self) -> None:
        """Keep each instance from charging for a moment, so that its last batch is a large one, and nothing
        comes after it.
        """
        pace = self._history.count("acknowledged") / (time.monotonic() - self._began)
        seconds = min(max(LAST_BATCH, GATHERED / max(pace, 0.1)), LONGEST_LAST_BATCH)
        for _ in self._supervisors["financial"]:
            number = next(self._numbers)
            self._control.arm("charge.before", Armed(number, "delay", seconds))
            await self._control.hit(number, within=5)
            self._control.disarm("charge.before")
        await asyncio.sleep(0.7 * seconds)

    async def _happens(self, fault: Fault) -> bool:
        if fault.where == "dead-letter":
            self._foreign.send("garbage")
        hit = await self._action(fault)(fault)
        if hit is not None:
            self.journal.append(Happened(fault, hit.by, hit.at, time.time()))
        return hit is not None

    def _action(self, fault: Fault) -> Action:
        if fault.lane in self._supervisors:
            return self._any_moment if fault.where.endswith(ANY_MOMENT) else self._at_point
        if fault.where == "both services":
            return self._both
        return self._actions[fault.action]

    async def _at_point(self, fault: Fault) -> Hit | None:
        number = next(self._numbers)
        self._control.arm(fault.where, Armed(number, fault.action, fault.seconds))  # type: ignore[arg-type]
        try:
            by = await self._hit(number, fault.where)
        finally:
            missed = self._control.disarm(fault.where)
        if by is None and not missed:  # at the last moment
            by = await self._control.hit(number, within=1)
        if by is None:
            return None
        hit = Hit(by)
        if fault.action in (*BROKEN, WATCHER_ENDS):
            await self._work_on(fault, self._supervisor(by), number)
        else:
            await self._overcome(fault, self._supervisor(by))
        return hit

    async def _work_on(self, fault: Fault, supervisor: Supervisor, number: int) -> None:
        """Until its log is mended. Raises `DidNotComeBack` where it stands still meanwhile."""
        until = time.monotonic() + fault.seconds
        try:
            if not await self._passes(fault.where, supervisor):
                raise DidNotComeBack(f"{supervisor.service.name} does nothing, as its log is {fault.action}")
            await asyncio.sleep(until - time.monotonic())
        finally:
            self._control.mend(number)

    async def _passes(self, point: str, supervisor: Supervisor) -> bool:
        """Whether this very service comes by again, and answers."""
        give_up = time.monotonic() + UP_TIMEOUT
        while time.monotonic() < give_up:
            await supervisor.back(within=UP_TIMEOUT)
            number = next(self._numbers)
            self._control.arm(point, Armed(number, "delay"))
            by = await self._hit(number, point)
            self._control.disarm(point)
            if by == supervisor.service.name and await supervisor.answers():
                return True
        return False

    async def _hit(self, number: int, point: str) -> str | None:
        for _ in range(3):
            if point.startswith("dead-letter"):
                self._foreign.send("garbage")
            if by := await self._control.hit(number, within=2):
                return by
        return None

    async def _any_moment(self, fault: Fault) -> Hit:
        supervisor = self._rng.choice(self._supervisors[fault.lane])
        await supervisor.back(within=UP_TIMEOUT)
        self._strike(fault, supervisor)
        hit = Hit(supervisor.service.name)
        await self._overcome(fault, supervisor)
        return hit

    async def _both(self, fault: Fault) -> Hit:
        everybody = [supervisor for supervisors in self._supervisors.values() for supervisor in supervisors]
        for supervisor in everybody:
            self._strike(fault, supervisor)
        hit = Hit("both")
        await asyncio.gather(*(self._overcome(fault, supervisor) for supervisor in everybody))
        return hit

    def _strike(self, fault: Fault, supervisor: Supervisor) -> None:
        if fault.action == "kill":
            supervisor.kill()
        else:
            supervisor.freeze()

    async def _overcome(self, fault: Fault, supervisor: Supervisor) -> None:
        """The end of what does not pass by itself."""
        if fault.action == "freeze":
            try:
                await asyncio.sleep(fault.seconds)
            finally:
                supervisor.resume()
        elif fault.action == "kill" and self._rng.random() > AGAIN_WHILE_IT_RECOVERS:
            await asyncio.sleep(0.1)  # until its supervisor has seen it
            await supervisor.back(within=UP_TIMEOUT)
        elif fault.action in (*LOOP_ENDS, *THREAD_ENDS):
            await supervisor.over(within=self._over)
            await supervisor.back(within=UP_TIMEOUT)
        elif fault.action in ("delay", "fill"):
            await asyncio.sleep(fault.seconds)

    async def _send(self, fault: Fault) -> Hit | None:
        name = self._foreign.send(fault.where)
        if name is None:
            return None

        async def is_sent() -> bool:
            return self._foreign.is_sent(name)

        with suppress(AssertionError):
            await eventually(is_sent, within=5)
            return Hit("messages")
        return None

    async def _step_clock(self, fault: Fault) -> Hit:
        self._control.step_clock(fault.where, fault.seconds)
        hit = Hit(fault.where)
        await asyncio.sleep(0.5)
        return hit

    def _supervisor(self, name: str) -> Supervisor:
        return next(
            supervisor
            for supervisors in self._supervisors.values()
            for supervisor in supervisors
            if supervisor.service.name == name
        )
