"""What a port of a service stands on, and how it goes wrong: a file that cannot grow, a thread that ends."""

import asyncio
from contextlib import suppress
from threading import Event
from typing import Any, Final

from clinic.adapters.sqlite.file import SqliteFile
from clinic.domain.errors import ClinicError
from clinic.entrypoints.log_writer import standard_error

NO_LIMIT: Final = 4_294_967_294
A_FAULT: Final = "a fault of the campaign"

_running: set[asyncio.Task[None]] = set()


class Unforeseen(BaseException):
    """What `except Exception` does not catch."""


class Below:
    """A SQLite file, or the resource of a transport or store on a server."""

    def __init__(self, resource: Any) -> None:
        self.resource = resource

    async def fill(self, seconds: float) -> None:
        """For so long, the file cannot grow: SQLite then answers as on a full disk."""
        file = self.resource

        async def empty() -> None:
            await asyncio.sleep(seconds)
            with suppress(ClinicError):  # it is closed by now
                await file.write(lambda connection: connection.execute(f"PRAGMA max_page_count={NO_LIMIT}"))

        await file.write(lambda connection: connection.execute("PRAGMA max_page_count=1"))
        task = asyncio.create_task(empty())
        _running.add(task)
        task.add_done_callback(_running.discard)

    def end_thread(self, action: str, point: str) -> None:
        """What the thread meets next is an error outside all that it is prepared for."""
        reason = f"{action} at {point}: {A_FAULT}"
        if action == "end-log-writer":
            writer: Any = standard_error
            writer._put = _Once(reason)  # noqa: SLF001 — broken on purpose, on the inside
        elif isinstance(self.resource, SqliteFile):
            names = {"end-thread": "_writer", "end-reader": "_reader"}
            getattr(self.resource, names[action])._executor._work_queue.put(_Work(reason))  # noqa: SLF001
        else:  # what the threads of Kafka's ends ask in each round
            self.resource._closing = _Round(reason)  # noqa: SLF001


class _Work:
    """Work that is none: the thread of a SQLite file ends with it."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def run(self) -> None:
        raise Unforeseen(self._reason)


class _Round(Event):
    def __init__(self, reason: str) -> None:
        super().__init__()
        self._reason = reason

    def is_set(self) -> bool:
        raise Unforeseen(self._reason)


class _Once:
    """The next line ends the writer; the thread after it writes as ever."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __call__(self, _: bytes) -> bool:
        del standard_error._put  # noqa: SLF001
        raise Unforeseen(self._reason)
