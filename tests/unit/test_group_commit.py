"""Many callers, one write, each caller its own outcome."""

import asyncio
import gc
from collections.abc import Sequence

import pytest

from clinic.adapters.group_commit import GroupCommit
from clinic.domain.errors import ClinicError, Conflict, Unavailable


class Writer:
    """Doubles numbers, has a conflict with odd ones; each write waits until it is let go."""

    def __init__(self, *, failing: Exception | None = None) -> None:
        self.groups: list[list[int]] = []
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.ended = asyncio.Event()
        self.failing = failing

    async def __call__(self, group: Sequence[int]) -> Sequence[int | ClinicError]:
        self.groups.append(list(group))
        self.begun.set()
        await self.go_on.wait()
        self.ended.set()
        if self.failing:
            raise self.failing
        return [Conflict(str(number)) if number % 2 else 2 * number for number in group]


async def test_each_caller_gets_its_own_outcome() -> None:
    writer = Writer()
    writer.go_on.set()
    commit = GroupCommit(writer)
    outcomes = await asyncio.gather(*map(commit, range(4)), return_exceptions=True)
    assert (outcomes[0], outcomes[2]) == (0, 4)
    assert [str(outcome) for outcome in outcomes if isinstance(outcome, Conflict)] == ["1", "3"]


async def test_while_one_write_is_under_way_the_next_gathers() -> None:
    writer = Writer()
    commit = GroupCommit(writer)
    first = asyncio.create_task(commit(0))
    await writer.begun.wait()
    others = [asyncio.create_task(commit(number)) for number in (2, 4, 6)]
    await asyncio.sleep(0)
    writer.go_on.set()
    assert await asyncio.gather(first, *others) == [0, 4, 8, 12]
    assert writer.groups == [[0], [2, 4, 6]]


async def test_a_group_is_never_larger_than_its_limit() -> None:
    writer = Writer()
    writer.go_on.set()
    commit = GroupCommit(writer, limit=2)
    assert await asyncio.gather(*(commit(number) for number in (0, 2, 4, 6, 8))) == [0, 4, 8, 12, 16]
    assert writer.groups == [[0, 2], [4, 6], [8]]


async def test_a_caller_that_is_cancelled_leaves_the_write_and_the_others_alone() -> None:
    writer = Writer()
    commit = GroupCommit(writer)
    callers = [asyncio.create_task(commit(number)) for number in (0, 2, 4)]
    await writer.begun.wait()
    callers[0].cancel()
    await asyncio.wait([callers[0]])
    writer.go_on.set()
    assert await asyncio.gather(*callers[1:]) == [4, 8]
    assert callers[0].cancelled()
    assert (writer.ended.is_set(), writer.groups) == (True, [[0, 2, 4]])


async def test_what_was_called_for_is_written_even_where_every_caller_is_cancelled() -> None:
    writer = Writer()
    commit = GroupCommit(writer)
    callers = [asyncio.create_task(commit(number)) for number in (0, 2)]
    await writer.begun.wait()
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    writer.go_on.set()
    await writer.ended.wait()
    assert await commit(4) == 8


@pytest.mark.parametrize("error", [Unavailable("who knows"), ZeroDivisionError()], ids=repr)
async def test_a_write_that_fails_is_unknown_for_all_of_its_group_and_the_next_goes_on(
    error: Exception,
) -> None:
    writer = Writer(failing=error)
    writer.go_on.set()
    commit = GroupCommit(writer)
    assert await asyncio.gather(*(commit(number) for number in (0, 2)), return_exceptions=True) == [
        error,
        error,
    ]
    writer.failing = None
    assert await commit(4) == 8


async def test_a_panic_in_a_write_keeps_no_caller_waiting_and_is_told_once() -> None:
    class Panic(BaseException):
        """What an extension in Rust raises: no `Exception`."""

    async def panics(_: Sequence[int]) -> Sequence[int]:
        raise Panic

    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: told.append(said["exception"]))
    commit = GroupCommit(panics)
    for outcome in await asyncio.gather(commit(0), commit(2), return_exceptions=True):
        assert isinstance(outcome, Unavailable)
    gc.collect()
    assert [type(each) for each in told] == [Panic]


async def test_a_lone_call_waits_for_nobody_elses_write() -> None:
    writer = Writer()
    commit = GroupCommit(writer, beside=3)
    callers = []
    for number in (0, 2, 4, 6, 8):
        callers.append(asyncio.create_task(commit(number)))
        for _ in range(5):  # turns of the loop: the call, its group, its write
            await asyncio.sleep(0)
    assert writer.groups == [[0], [2], [4]]
    writer.go_on.set()
    assert await asyncio.gather(*callers) == [0, 4, 8, 12, 16]
    assert writer.groups == [[0], [2], [4], [6, 8]]


@pytest.mark.parametrize(("beside", "written"), [(2, [[0, 2, 4], [6]]), (1, [[0, 2, 4]])])
async def test_a_server_has_the_next_write_before_the_callers_of_the_last_go_on(
    beside: int, written: list[list[int]]
) -> None:
    writer = Writer()
    commit = GroupCommit(writer, beside=beside)

    async def sees(number: int) -> list[list[int]]:
        await commit(number)
        return writer.groups.copy()

    first = [asyncio.create_task(sees(number)) for number in (0, 2, 4)]
    await writer.begun.wait()
    last = asyncio.create_task(commit(6))
    await asyncio.sleep(0)
    writer.go_on.set()
    assert await asyncio.gather(*first) == [written] * 3
    assert await last == 12


async def test_a_caller_waits_no_longer_than_its_time_whoever_writes() -> None:
    writer = Writer()
    commit = GroupCommit(writer, timeout=0.01)
    callers = [asyncio.create_task(commit(0))]
    await writer.begun.wait()
    callers.append(asyncio.create_task(commit(2)))
    for caller in callers:
        with pytest.raises(Unavailable, match="does not answer within"):
            await caller
    writer.go_on.set()
    assert await commit(4) == 8
    assert writer.groups == [[0], [2, 4]]
