"""A transport in SQLite: an event log that only the publisher writes, and a file with each group's offset.

A group's place is an offset with the log's random id and the time at which the event there was published. A
log that does not have this event there was replaced, or is an older copy: the group restarts at 0, lest it
skips what is new. The publisher gives such a log a new id as soon as it notices.
"""

import sqlite3
import zlib
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from clinic.adapters import cloudevents
from clinic.adapters.sqlite import file as sqlite
from clinic.adapters.sqlite.file import SqliteFile, milliseconds
from clinic.domain.errors import Unavailable
from clinic.domain.messaging.messages import Delivery, Message, Origin, PublishResult
from clinic.domain.messaging.ports import Clock, Monotonic, Publisher, Resource, Sleep, Subscription

BATCH_SIZE = 500
PRUNE_INTERVAL, PRUNE_SIZE = 1000, 20_000
"""Events that are published between two prunings, and up to how many one drops: it holds up an end."""

MIN_POLL, MAX_POLL = 0.001, 0.02
"""Seconds between two polls of the log: after an event, and when there has been none for long."""
POLL_BACKOFF = 1.02
"""Factor on the wait after each empty poll: from the shortest to the longest in about a second."""

SERVED_INTERVAL, PUBLISHER_TIMEOUT = 1.0, 15.0
"""Seconds between two looks whether anybody publishes, and after which it is a failure if nobody does."""

LOG_VERSION = 1
PRUNE = "DELETE FROM events WHERE seq <= min(?, (SELECT min(seq) FROM events) + ? - 1)"
"""One bound: of two, SQLite would take the first, and look at each row up to that one."""
RENAME = "INSERT OR REPLACE INTO log (rowid, id) VALUES (1, lower(hex(randomblob(8))))"


class Place(NamedTuple):
    """Up to where a group has acknowledged; `published_at` (milliseconds) is None where it is not known."""

    log: str = ""
    seq: int = 0
    published_at: int | None = None


class SqlitePublisher(Publisher, Resource):
    """The way into the event log. It prunes what every group has acknowledged, once there is a group."""

    def __init__(self, log: SqliteFile, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._last_seq = 0
        self._since_pruning = PRUNE_INTERVAL

    async def open(self) -> None:
        """Raises `Misconfigured` where another process publishes to this log."""
        await self._log.open()
        self._last_seq = await self._log.write(partial(_rename_older_copy, self._log.path))

    async def close(self) -> None:
        await self._log.close()

    def check_alive(self) -> None:
        """Raises `Unavailable` where the log is closed, moved or replaced."""
        self._log.check_alive()

    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        if not batch:
            return []
        now = self._clock()
        positions = await self._log.write(partial(_append, batch, milliseconds(now), self._last_seq))
        self._last_seq = int(positions[-1].rpartition("/")[2])
        self._since_pruning += len(batch)
        if self._since_pruning >= PRUNE_INTERVAL:
            self._since_pruning = 0
            with suppress(Unavailable):  # what is published is published
                await self.prune()
        return [PublishResult(*kept, now) for kept in zip(batch, positions, strict=True)]

    async def prune(self) -> None:
        """Drop events that every group has acknowledged: the oldest, up to `PRUNE_SIZE`."""
        await self._log.write(partial(_prune, self._log.path))


class SqliteSubscription(Subscription, Resource):
    """A group's way out of the log at that path, its offset in a file of its own. One process per group.

    An empty log that nobody publishes to is `Unavailable` after a while: the other service may publish in
    another folder.
    """

    def __init__(
        self, log: Path, offset: SqliteFile, clock: Clock, pause: Sleep, monotonic: Monotonic = monotonic
    ) -> None:
        self._path, self._offset = log, offset
        self._clock, self._monotonic = clock, monotonic
        self._pause = pause
        self._log: _OpenLog | None = None
        self._has_failed = False
        self._published_until = monotonic()

    async def receive(self) -> Sequence[Delivery]:
        try:
            batch = await self._next_batch()
        except Unavailable:
            self._has_failed = True
            raise
        self._has_failed = False
        return batch

    async def _next_batch(self) -> Sequence[Delivery]:
        """Waits for events; after a failure, an empty batch says at once that it is over."""
        place = await self._offset.read(_stored_place)
        wait = MIN_POLL
        while not (batch := self._read_after(place)):
            self._check_publisher()
            if self._has_failed:
                break
            await self._pause(wait)
            wait = min(wait * POLL_BACKOFF, MAX_POLL)
        if batch and _place(batch[0]).seq <= place.seq:  # it restarts
            await self._offset.write(lambda connection: connection.execute("DELETE FROM place"))
        return batch

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        if batch:
            await self._offset.write(partial(_advance, _place(batch[-1])))

    async def lag(self) -> int | None:
        """How many events the group has not acknowledged; None where no log is read yet."""
        place = await self._offset.read(_stored_place)
        if (opened := self._log) is None:
            if self._has_failed:
                raise Unavailable(f"{self._path.name} cannot be read")
            return None
        return max(0, _newest(opened.connection) - _held(place, opened.connection))

    def _read_after(self, place: Place) -> Sequence[Delivery]:
        """The next events. A read of a local file takes microseconds, less than waking a thread."""
        try:
            if self._log is None or self._log.is_replaced():
                self._close_log()
                self._log = _OpenLog(self._path)
            return self._log.read_after(place, self._clock())
        except FileNotFoundError:
            return []  # nobody has published yet
        except (sqlite3.Error, OSError) as error:
            self._close_log()
            raise Unavailable(f"{self._path.name} does not answer: {error}") from error

    def _check_publisher(self) -> None:
        seconds = self._monotonic() - self._published_until
        if seconds > SERVED_INTERVAL and self._log and sqlite.is_served(self._path):
            self._published_until = self._monotonic()
        elif seconds > PUBLISHER_TIMEOUT:
            raise Unavailable(
                f"nobody publishes to {self._path}, or it is no log: is the appointment service there?"
            )

    async def open(self) -> None:
        """Raises `Misconfigured` where another process serves this group."""
        await self._offset.open()
        name = f"PRAGMA application_id={_name_id(self._offset.path)}"
        await self._offset.write(lambda connection: connection.execute(name))

    async def close(self) -> None:
        self._close_log()
        await self._offset.close()

    def check_alive(self) -> None:
        """Raises `Unavailable` where the offsets or a log that was read before are moved or replaced."""
        self._offset.check_alive()
        if self._log is not None and self._log.is_replaced():
            raise Unavailable(f"{self._path} was moved, removed or replaced")

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.connection.close()
            self._log = None


class _OpenLog:
    """Another process's event log, open for reading. Raises `FileNotFoundError` where it is not made yet."""

    def __init__(self, path: Path) -> None:
        path.stat()
        self._path, self._names = path, sqlite.names(path)
        opened = sqlite.identities(str(path))
        self.connection = sqlite.read_only(path)
        self.connection.text_factory = bytes  # text may be no text: it makes a dead letter
        try:
            self._check_schema()
        except BaseException:
            self.connection.close()
            raise
        self._files = opened + self._found()[1:]

    def _check_schema(self) -> None:
        if sqlite.schema_version(self.connection, self._path, LOG_VERSION) < LOG_VERSION:
            raise FileNotFoundError(self._path)

    def is_replaced(self) -> bool:
        """Raises `Unavailable` where only its -wal was removed, beneath a publisher, who saves what is in it:
        to open it again would make another one, and it no longer could.
        """
        found = self._found()
        if found != self._files and found[:2] == (self._files[0], None) and sqlite.is_served(self._path):
            raise Unavailable(f"{self._path}-wal was moved, removed or replaced: restart its publisher")
        return found != self._files

    def _found(self) -> sqlite.Files:
        return sqlite.identities(*self._names[:3])

    def read_after(self, place: Place, now: datetime) -> Sequence[Delivery]:
        """Up to a batch of events after that place; from the first if the place is another log's."""
        if not (found := _log_id(self.connection)):
            raise Unavailable(f"{self._path} has no id: its publisher gives it one")
        query = "SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
        rows = self.connection.execute(query, (_held(place, self.connection), BATCH_SIZE))
        return [_delivery(f"{found}/{row[0]}", row, now) for row in rows]


def _log_id(connection: sqlite3.Connection) -> str:
    """Empty where it has lost it."""
    found = connection.execute("SELECT CAST(id AS BLOB) FROM log").fetchone()
    return found[0].decode(errors="replace") if found else ""


def _place(delivery: Delivery) -> Place:
    log, _, seq = delivery.origin.position.partition("/")
    return Place(log, int(seq), milliseconds(delivery.origin.published_at))


def _advance(place: Place, connection: sqlite3.Connection) -> None:
    stored = _stored_place(connection)
    if place.log != stored.log or place.seq > stored.seq:
        connection.execute("INSERT OR REPLACE INTO place VALUES (1, ?, ?, ?)", place)


def _stored_place(connection: sqlite3.Connection) -> Place:
    place = Place(*(connection.execute("SELECT log, seq, published_at FROM place").fetchone() or ()))
    if not isinstance(place.seq, int):  # nothing is beyond such an offset, for ever
        raise sqlite3.DataError(f"{place.seq!r} is stored as an offset")
    return place


def _held(place: Place, connection: sqlite3.Connection) -> int:
    """The offset, or 0 where the log was replaced, or is an older copy that numbers new events so."""
    if place.log != _log_id(connection) or place.seq > _newest(connection):
        return 0
    query = "SELECT published_at FROM events WHERE seq = ?"  # unless it was pruned
    times = {milliseconds(cloudevents.time(row[0])) for row in connection.execute(query, (place.seq,))}
    return place.seq if place.published_at is None or times <= {place.published_at} else 0


def _name_id(path: Path) -> int:
    """Kept in a group's file: a copy of it under another name is not a group."""
    return zlib.crc32(path.name.encode()) >> 1 or 1


def _append(
    batch: Sequence[Message], now: int, last_seq: int, connection: sqlite3.Connection
) -> Sequence[str]:
    if _newest(connection) < last_seq or not _log_id(connection):  # an older copy was restored into the file
        connection.execute(RENAME)
    log = _log_id(connection)
    insert = "INSERT INTO events (key, headers, value, published_at) VALUES (?,?,?,?)"
    positions = []
    for message in batch:
        headers = [(name, content.decode()) for name, content in cloudevents.headers(message)]
        row = (message.key, msgspec.json.encode(headers), message.data, now)
        positions.append(f"{log}/{connection.execute(insert, row).lastrowid}")
    return positions


def _rename_older_copy(path: Path, connection: sqlite3.Connection) -> int:
    """The newest event's number."""
    log = _log_id(connection)
    beyond = [place for place in _places(path) if place.log == log and place.seq > _held(place, connection)]
    if beyond or not log:
        connection.execute(RENAME)
    return _newest(connection)


def _newest(connection: sqlite3.Connection) -> int:
    query = "SELECT max(seq) FROM sqlite_sequence WHERE name = 'events'"
    return connection.execute(query).fetchone()[0] or 0


def _prune(path: Path, connection: sqlite3.Connection) -> None:
    offsets = [_held(place, connection) for place in _places(path)]
    connection.execute(PRUNE, (min(offsets, default=0), PRUNE_SIZE))


def _places(log: Path) -> Sequence[Place]:
    """Each group's."""
    files = log.parent.glob(f"{log.stem}.*{log.suffix}")
    return [place for file in files if (place := _group_place(file))]


def _group_place(path: Path) -> Place | None:
    """None where the file is not a group's: a copy of one, or of a log. One that cannot be read is at 0.

    A group that has not been opened since files carry a name's id is known by the lock file beside it.
    """
    is_served = Path(sqlite.names(path)[3]).exists()
    try:
        with closing(sqlite.read_only(path)) as connection:
            (name,) = connection.execute("PRAGMA application_id").fetchone()
            is_group = name == _name_id(path) or (not name and is_served)
            return _stored_place(connection) if is_group else None
    except sqlite3.Error:
        return Place() if is_served else None


def _delivery(position: str, row: Sequence[Any], now: datetime) -> Delivery:
    """What is in a row; what nobody of ours has written there becomes a dead letter, with its bytes."""
    origin = Origin(position=position, published_at=cloudevents.time(row[4]), received_at=now)
    return cloudevents.delivery(row[1], _headers(cloudevents.as_bytes(row[2])), row[3], origin)


def _headers(stored: bytes | None) -> tuple[tuple[str, bytes | None], ...]:
    try:
        texts = msgspec.json.decode(stored or b"", type=list[tuple[str, str]])
        return tuple((name, content.encode()) for name, content in texts)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return (("headers", stored),)
