"""What the SQLite adapters share: one file, one serving process, one thread that writes and one that reads.

A commit here is on the disk when it returns (WAL, synchronous=FULL). See the SQLite documentation,
"Write-Ahead Logging".
"""

import asyncio
import fcntl
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.resources import files
from itertools import chain
from pathlib import Path
from threading import Thread, current_thread
from typing import Any, TypeVar
from uuid import UUID

from clinic.domain.errors import Misconfigured, Unavailable
from clinic.domain.messaging.ports import Resource

T = TypeVar("T")
Row = Sequence[Any]
Work = Callable[[sqlite3.Connection], T]
Files = tuple[tuple[int, int] | None, ...]

BUSY_TIMEOUT = 3.0
"""Seconds that a write waits for another process's write to end."""
ANSWER_TIMEOUT = 10.0
"""Seconds after which a file that does not answer is a failure; the work on it may still end."""
WAL_MAGIC = b"\x37\x7f\x06"
"""How a log begins. See the SQLite documentation, "Database File Format", 4.1."""
DURABLE = "PRAGMA synchronous=FULL; PRAGMA fullfsync=1; PRAGMA checkpoint_fullfsync=1"
"""The last two are for macOS."""

_epoch = datetime(1970, 1, 1, tzinfo=UTC)
_millisecond = timedelta(milliseconds=1)


def milliseconds(moment: datetime) -> int:
    """A moment as it is stored: whole milliseconds since 1970, UTC."""
    return (moment - _epoch) // _millisecond


def moment(milliseconds: int) -> datetime:
    """A stored moment, aware UTC. Raises `Unavailable` where something else is stored."""
    try:
        return _epoch + milliseconds * _millisecond
    except (OverflowError, TypeError) as error:
        raise Unavailable(f"{milliseconds!r} is stored as a moment") from error


def scripts(schema: str) -> list[str]:
    """The scripts of a schema, in order: each takes a file from one version to the next."""
    folder = files("clinic.adapters.sqlite") / "schemas" / schema
    return [(folder / f"{version}.sql").read_text() for version in range(1, len([*folder.iterdir()]) + 1)]


class SqliteFile(Resource):
    """A file with a schema, opened by the one process that serves it.

    Each of `scripts` takes the schema from one version to the next, the first from nothing. An older file is
    brought up to date; older code refuses a newer file.
    """

    def __init__(self, path: Path, *scripts: str) -> None:
        self.path = path
        self._names = names(path)
        self._scripts = scripts
        self._version = len(scripts)
        self._lock: int | None = None
        self._log: int | None = None
        self._files: Files = ()
        self._writer: _Thread | None = None
        self._reader: _Thread | None = None

    async def open(self) -> None:
        """Raises `Misconfigured` where another process serves the file, or newer code has written it."""
        if self._lock is not None:
            return
        self._lock = _locked(self.path)
        await self._connect(self._prepare)

    async def attach(self) -> None:
        """Open it beside its process. Raises `Misconfigured` unless its schema is of this version."""
        if not self.path.exists():
            raise Misconfigured(
                f"there is no {self.path}: name its folder in CLINIC_DATA_DIR, or start the services once"
            )
        await self._connect(self._check_schema)

    async def _connect(self, prepare: Work[None]) -> None:
        try:
            self._writer = _Thread(self.path)
            await self._writer.run(prepare)
            self._reader = _Thread(self.path)
            self._files = self._found()
            if self._files[1]:
                self._log = await self._reader.run(lambda _: os.open(self._names[1], os.O_RDONLY))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Ends the work under way, then releases the file. A second call does nothing."""
        threads = [self._reader, self._writer]
        self._reader = self._writer = None
        for thread in filter(None, threads):
            await thread.close()
        opened = [self._log, self._lock]
        self._log = self._lock = None
        for descriptor in opened:
            if descriptor is not None:
                os.close(descriptor)

    async def write(self, work: Work[T]) -> T:
        """Do the work as one transaction, safe on the disk when this returns.

        Raises `Unavailable`: the outcome is unknown. So it is when the wait is cancelled.
        """
        return await self._run(self._writer, partial(transaction, work=work))

    async def read(self, work: Work[T]) -> T:
        """Do the work on one consistent state of the file. Raises `Unavailable`."""
        deferred = partial(transaction, work=work, begin=lambda it: it.execute("BEGIN"))
        return await self._run(self._reader, deferred)

    async def page(
        self,
        table: str,
        order: str,
        conditions: Sequence[tuple[str, Any]],
        limit: int,
        read: Callable[[Row], T],
        columns: str = "*",
    ) -> Sequence[T]:
        """The rows that meet every condition with a value; a tuple fills several placeholders."""
        matching = [(text, value) for text, value in conditions if value is not None]
        where = " AND ".join(text for text, _ in matching) or "true"
        parts = (value if isinstance(value, tuple) else (value,) for _, value in matching)
        values = [*map(stored, chain.from_iterable(parts))]
        query = f"SELECT {columns} FROM {table} WHERE {where} ORDER BY {order} LIMIT ?"
        return await self.read(lambda it: [read(row) for row in named_rows(it, query, [*values, limit])])

    async def check(self) -> None:
        """Return when the file takes writes and answers reads. Raises `Unavailable`."""
        await self.write(self._write_version)
        await self.read(lambda connection: connection.execute("PRAGMA user_version").fetchone())

    def check_alive(self) -> None:
        """Raises `RuntimeError` where a thread has ended, `Unavailable` where this is another file.

        SQLite keeps writing to a file that was moved, removed or replaced, and a restart would not find it.
        """
        if self._writer is None:
            raise Unavailable(f"{self.path.name} is closed")
        for thread in filter(None, (self._writer, self._reader)):
            thread.check_alive()
        self._check_files()

    def _check_files(self, connection: sqlite3.Connection | None = None) -> None:
        head = os.pread(self._log, len(WAL_MAGIC), 0) if connection and self._log is not None else b""
        if (found := self._found()) != self._files:
            is_removed = found[:2] == (*self._files[:1], None)
            if connection and is_removed and head == WAL_MAGIC:  # its log goes when this process does
                connection.execute("PRAGMA wal_checkpoint")
            raise Unavailable(
                f"{self.path} was moved, removed or replaced, or one of its files beside it: "
                "put it back, or restart the service"
            )
        if connection:
            self._check_content(connection, head)

    def _check_content(self, connection: sqlite3.Connection, head: bytes) -> None:
        with suppress(sqlite3.Error):
            if not head:  # emptied by a backup, as SQLite knows; else it misses what it has put there
                connection.execute("PRAGMA wal_checkpoint")
            if head in (b"", WAL_MAGIC) and self.path.stat().st_size:
                return
        raise Unavailable(f"{self.path} or its -wal was emptied: kill the service and restore a backup")

    async def _run(self, thread: "_Thread | None", work: Work[T]) -> T:
        if thread is None:
            raise Unavailable(f"{self.path.name} is closed")

        def checked(connection: sqlite3.Connection) -> T:
            self._check_files(connection)
            result = work(connection)
            self._check_files(connection)
            return result

        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await thread.run(checked)
        except TimeoutError:
            raise Unavailable(f"{self.path.name} does not answer within {ANSWER_TIMEOUT:g} s") from None

    def _found(self) -> Files:
        return identities(*self._names[: 3 if self._lock is None else 4])

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        found = schema_version(connection, self.path, self._version)
        if found < self._version:
            raise Misconfigured(
                f"{self.path} has schema {found}, and {self._version} is needed: start its service anew"
            )

    def _write_version(self, connection: sqlite3.Connection) -> None:
        try:
            self._check_schema(connection)  # where another copy was restored into it
        except Misconfigured as error:
            raise Unavailable(str(error)) from error
        connection.execute(f"PRAGMA user_version={self._version}")

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        found = schema_version(connection, self.path, self._version)
        if found < self._version:
            newer = ";".join(self._scripts[found:])
            connection.executescript(f"BEGIN IMMEDIATE; {newer}; PRAGMA user_version={self._version}; COMMIT")


class _Thread:
    """A connection and the only thread that uses it."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._threads: list[Thread] = []
        self._executor = ThreadPoolExecutor(1, path.name, lambda: self._threads.append(current_thread()))
        self._connection = connect(path)

    def check_alive(self) -> None:
        if not all(thread.is_alive() for thread in self._threads):
            raise RuntimeError(f"the thread of {self._name} has ended")

    async def run(self, work: Work[T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work, self._connection)
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"{self._name} does not answer: {error}") from error

    async def close(self) -> None:
        await asyncio.to_thread(self._executor.shutdown)
        self._connection.close()


def is_served(path: Path) -> bool:
    """Whether a process has opened this file as its own. Where that cannot be asked, it counts as served."""
    try:
        with Path(names(path)[3]).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, FileNotFoundError)
    return False


def connect(path: Path) -> sqlite3.Connection:
    """A connection without Python's own transactions. Raises `Unavailable`."""
    try:
        connection = sqlite3.connect(path, BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            connection.executescript(DURABLE)
            # What is no text, in one row, is no reason to read none of the others.
            connection.text_factory = lambda text: text.decode(errors="replace")
        except sqlite3.Error:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise Unavailable(f"{path} cannot be opened: {error}") from error
    return connection


def read_only(path: Path) -> sqlite3.Connection:
    """Another process's file. Raises `sqlite3.Error` where it is not there (yet)."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, uri=True)
    connection.execute("PRAGMA query_only=1")
    return connection


def names(path: Path) -> tuple[str, str, str, str]:
    """Of a database: itself, its log, the log's index and its lock. SQLite follows a link, so these do."""
    real = os.path.realpath(path)
    return str(path), f"{real}-wal", f"{real}-shm", f"{real}.lock"


def identities(*paths: str) -> Files:
    """Device and inode of what these paths name now; None for nothing."""
    return tuple(map(_identity, paths))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 — at each transaction: a Path would cost as much again
    except OSError:
        return None
    return status.st_dev, status.st_ino


def schema_version(connection: sqlite3.Connection, path: Path, known: int) -> int:
    """How many scripts have run. Raises `Misconfigured` where newer code, which has more, wrote the file."""
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > known:
        raise Misconfigured(
            f"{path} was written by a newer version of this program (schema {found}): run that one"
        )
    return found


def _begin_writing(connection: sqlite3.Connection) -> None:
    # SQLite's own waiting starves the rarer of two writers; short random retries give each its turn.
    give_up = time.monotonic() + BUSY_TIMEOUT
    connection.execute("PRAGMA busy_timeout=0")
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(random.uniform(0.0005, 0.005))  # noqa: S311 — spreads load, guards nothing
        else:
            return


def transaction(
    connection: sqlite3.Connection,
    work: Work[T],
    begin: Callable[[sqlite3.Connection], object] = _begin_writing,
) -> T:
    """The work between BEGIN and COMMIT; rolled back when either raises."""
    begin(connection)
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def _locked(path: Path) -> int:
    """A lock file's descriptor: the lock goes with the process, however it ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(names(path)[3], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Misconfigured(
            f"{path.parent} cannot be written: {error.strerror}. Set CLINIC_DATA_DIR to a folder that can"
        ) from error
    for wait in (0.01, 0.01, 0):  # `is_served` asks with a lock of its own
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        time.sleep(wait)
    os.close(lock)
    raise Misconfigured(
        f"{path} is served by another process: stop that one, or set CLINIC_DATA_DIR to another folder"
    )


def stored(value: object) -> object:
    """A value as its column has it: ids as bytes, times in whole milliseconds."""
    if isinstance(value, UUID):
        return value.bytes
    return milliseconds(value) if isinstance(value, datetime) else value


def named_rows(connection: sqlite3.Connection, query: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
    """The rows of a query; their columns have names."""
    cursor = connection.cursor()
    cursor.row_factory = sqlite3.Row
    return cursor.execute(query, values)


def with_times(row: Any, *names: str) -> dict[str, Any]:
    """The columns of a row, those with these names as moments."""
    return {**row, **{name: moment(row[name]) for name in names if row[name] is not None}}


def placeholders(values: Iterable[object]) -> str:
    """A question mark for each value of a query."""
    return ",".join("?" for _ in values)
