"""Calls that block, beside the event loop."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

from clinic.adapters.group_commit import answer
from clinic.domain.errors import Unavailable

T = TypeVar("T")


async def in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """What the call answers. Raises what it raises, and `Unavailable`.

    In a thread of its own that nobody waits for once its caller is gone, also at the end: it may hang.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        outcome: T | BaseException
        try:
            outcome = call(*arguments)
        except BaseException as error:  # noqa: BLE001 — its caller hears of it
            outcome = error
        except:  # noqa: E722 — a bare KafkaError is no BaseException: its caller would wait for ever
            outcome = Unavailable(f"a library failed: {sys.exc_info()[1]!r}")
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(answer, future, outcome)

    Thread(target=run, name=getattr(call, "__name__", None), daemon=True).start()
    return await future
