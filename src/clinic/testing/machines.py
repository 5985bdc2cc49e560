"""What the state machines share: any history of calls, each compared with a model so simple that it is
plainly right.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar
from uuid import UUID, uuid4

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from clinic.testing.subject import Contract

P = ParamSpec("P")
T = TypeVar("T")
Subject = TypeVar("Subject")
AnyMachine = TypeVar("AnyMachine", bound="Machine")

IDS = [UUID(int=first << 120 | 1) for first in (0x00, 0x7F, 0x80)]
"""Few, so that a history meets each of them often; far apart, so that stores which sort bytes differently
would show it.
"""
ids = st.sampled_from(IDS)
people = st.sampled_from([UUID(int=1), UUID(int=2)])
anyone = st.none() | people


def step(
    **drawn: st.SearchStrategy[Any],
) -> Callable[[Callable[Concatenate[AnyMachine, P], Awaitable[None]]], Callable[..., None]]:
    """A rule that is awaited."""

    as_rule: Callable[[Callable[..., None]], Callable[..., None]] = rule(**drawn)  # type: ignore[call-overload]  # none is a bundle

    def made(work: Callable[Concatenate[AnyMachine, P], Awaitable[None]]) -> Callable[..., None]:
        @wraps(work)
        def run(machine: AnyMachine, *args: P.args, **kwargs: P.kwargs) -> None:
            machine.run(work(machine, *args, **kwargs))

        return as_rule(run)

    return made


class Machine(RuleBasedStateMachine):
    """Its steps run on one event loop, which lives as long as the machine does.

    What a step may choose never depends on what the subject did: then every history can be repeated, however
    a server
    shares out its batches.
    """

    def __init__(self, suite: Contract, where: Path) -> None:
        super().__init__()
        self.suite = suite
        self.where = where.with_name(f"{where.name}-{uuid4().hex[:8]}")
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._is_open = self._went_wrong = False

    async def open(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def ends(self) -> None:
        """What must hold after any history that went well."""
        raise NotImplementedError

    def start(self) -> None:
        """Where a machine has nothing to choose before, its first rule is this."""
        self._is_open = True
        self.run(self.open())

    def run(self, work: Awaitable[T]) -> T:
        try:
            return self._runner.run(self.suite.soon(work))
        except BaseException:
            self._went_wrong = True
            raise

    def teardown(self) -> None:
        try:
            if self._is_open and not self._went_wrong:
                self.run(self.ends())
        finally:
            try:
                self._runner.run(self.close())
            finally:
                self._runner.close()


class Openable(Generic[Subject]):
    """A subject that can die and be opened again."""

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[Subject]]) -> None:
        self._opened = opened
        self._stack = AsyncExitStack()
        self._subject: Subject | None = None

    async def open(self) -> None:
        self._subject = await self._stack.enter_async_context(self._opened())

    async def close(self) -> None:
        self._subject = None
        await self._stack.aclose()

    async def reopen(self) -> None:
        await self.close()
        await self.open()

    def __call__(self) -> Subject:
        assert self._subject is not None
        return self._subject


async def given_up(work: Coroutine[Any, Any, T]) -> T | None:
    """What came although its caller gave up at once; None where nothing did."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return None if task.cancelled() else task.result()
