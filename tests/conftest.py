"""A test that hangs ends by itself, whatever event loop it meets, and says what it waited for."""

import asyncio
import inspect
import signal
import threading
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Final

import pytest

LAST_RESORT: Final = 120.0
"""Seconds after an asynchronous test's limit when pytest-timeout ends the process; another worker goes on."""
CANCELLED_TIMEOUT: Final = 5.0
SHOWN: Final = 20
"""Tasks at most that are shown."""

Test = Callable[..., Coroutine[Any, Any, None]]


def pytest_configure() -> None:
    # A job in the background may ignore them, and what tests start and signal would inherit that.
    if threading.current_thread() is threading.main_thread():
        for number, handler in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGHUP, signal.SIG_DFL),
        ):
            if signal.getsignal(number) == signal.SIG_IGN:
                signal.signal(number, handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    default = float(config.getini("timeout"))
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            marker = item.get_closest_marker("timeout")
            limit = float(marker.args[0]) if marker else default
            item.obj = _bounded(item.obj, limit)
            item.add_marker(pytest.mark.timeout(limit + LAST_RESORT), append=False)


def _bounded(test: Test, seconds: float) -> Test:
    @wraps(test)
    async def bounded(*arguments: Any, **named: Any) -> None:
        running = asyncio.create_task(test(*arguments, **named))
        done, _ = await asyncio.wait([running], timeout=seconds)
        if done:
            running.result()
            return
        waiting = _waiting()
        running.cancel()
        await asyncio.wait([running], timeout=CANCELLED_TIMEOUT)
        pytest.fail(f"not over after {seconds:.0f} s; waiting:\n{waiting}", pytrace=False)

    return bounded


def _waiting() -> str:
    """Where each task of the loop stands."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    return "\n".join(_place(task) for task in others[:SHOWN])


def _place(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack()
    where = f"{frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else "?"
    return f"{task.get_name()} {task.get_coro()!r} at {where}"
