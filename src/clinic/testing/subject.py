"""What the suites share."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from clinic.domain.appointment.ports import Appointments
from clinic.domain.messaging.ports import Outbox, Publisher, Subscription

T = TypeVar("T")

MANY = settings(
    max_examples=12, stateful_step_count=40, deadline=None, print_blob=True, report_multiple_bugs=False
)
"""Histories in memory or on a local disk: others at each run, except where CI is set: there Hypothesis
repeats the same ones.
"""
FEW = settings(MANY, max_examples=10, phases=[Phase.explicit, Phase.reuse, Phase.generate])
"""Histories on a server, where the search for the shortest one that fails would take minutes."""


class Store(Appointments, Outbox, Protocol):
    """Appointments and their outbox are one adapter, so that both can be saved in one step."""


class Ends(NamedTuple):
    """Both ends of a transport. Leaving a subscription is the death of the group's member."""

    publisher: Publisher
    subscribe: Callable[[str], AbstractAsyncContextManager[Subscription]]


class Contract:
    """A suite whose subject keeps its data at a place: opened there again, it is the same data."""

    patience: ClassVar[float] = 10
    """Seconds after which something that should have come counts as lost."""
    survives: ClassVar[bool] = True
    """What it keeps outlives its process."""
    several: ClassVar[bool] = True
    """Several processes can work on the same data at the same time."""
    always_answers: ClassVar[bool] = False
    """There is no server or file between the caller and the data that could fail to answer."""
    longest_hold: ClassVar[float] = 0.1
    """Seconds. Longer than a transport's other side waits before it takes a batch from a member."""
    histories: ClassVar[settings] = MANY
    """How many histories it goes through, and how long they are."""

    def __init_subclass__(cls) -> None:
        """Mark its asynchronous tests: no setting of the reader's is needed."""
        super().__init_subclass__()
        for name, test in list(vars(cls).items()):
            if name.startswith("test_") and inspect.iscoroutinefunction(test):
                setattr(cls, name, pytest.mark.asyncio(test))

    @pytest.fixture
    def where(self, tmp_path: Path) -> Path:
        """A place of this test's own. A subject on a server makes a name of it."""
        return tmp_path

    async def soon(self, awaited: Awaitable[T]) -> T:
        """Its result, unless it never comes."""
        try:
            async with asyncio.timeout(self.patience):
                return await awaited
        except TimeoutError:
            raise AssertionError(f"no answer within {self.patience:g} s") from None

    def goes_as_its_model(self, machine: Callable[[], RuleBasedStateMachine]) -> None:
        """Each of many histories; see clinic/testing/machines.py."""
        run_state_machine_as_test(machine, settings=self.histories)  # type: ignore[arg-type]  # a function will do, its docstring says

    def only_if(self, feature: bool, event: str) -> None:
        """Skip a promise that the subject declares it does not give."""
        if not feature:
            pytest.skip(f"declared: {event}")
