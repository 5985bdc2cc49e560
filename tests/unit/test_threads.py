"""Calls that block, beside the event loop."""

import asyncio
import threading

import pytest

from clinic.adapters.threads import in_thread


async def test_what_a_call_answers_comes_back() -> None:
    assert await in_thread(pow, 2, 10) == 1024


async def test_what_a_call_raises_comes_back() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 1, 0)


async def test_the_loop_goes_on_meanwhile() -> None:
    go_on = threading.Event()
    waiting = asyncio.create_task(in_thread(go_on.wait, 10))
    await asyncio.sleep(0)
    go_on.set()
    assert await waiting


def test_nobody_waits_at_the_end_for_a_call_that_hangs() -> None:
    hangs, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        hangs.wait(30)

    async def give_up() -> None:
        asking = asyncio.create_task(in_thread(hang))
        await in_thread(begun.wait, 10)
        asking.cancel()

    asyncio.run(give_up())
    assert not hangs.is_set()
    (left,) = [each for each in threading.enumerate() if each.name == "hang"]
    assert left.daemon
    hangs.set()
    left.join()
