"""A transport in SQLite: an event log that the publisher alone writes, and a file for each group that keeps
its place.

The log has a random id. A place is kept with it, and under another id a group starts from the beginning: a
log that
was replaced starts again at 1, and events below the old place would be passed over in silence. A log that
ends before a
group's place is an older copy: its publisher gives it a new id before it writes.
"""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from clinic.adapters import cloudevents
from clinic.adapters.sqlite.file import SqliteFile, milliseconds, moment, read_only
from clinic.domain.errors import Misconfigured, Unavailable
from clinic.domain.messaging.messages import Delivery, Message, Origin, PublishResult
from clinic.domain.messaging.ports import Clock, Publisher, Resource, Sleep, Subscription

BATCH_SIZE = 500
PRUNE_INTERVAL = 1000
"""Events that are published between two prunings."""

MIN_POLL, MAX_POLL = 0.001, 0.02
"""Seconds between two looks at the log: after an event, and when there has been none for long."""
POLL_BACKOFF = 1.02
"""How much longer each look that finds nothing makes the next wait: from busy to quiet in about a second."""

LOG_VERSION = 1
LOG = """
CREATE TABLE log (id TEXT NOT NULL);
INSERT INTO log VALUES (lower(hex(randomblob(8))));
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, headers BLOB NOT NULL, value BLOB,
    published_at INTEGER NOT NULL
);
"""
PLACE = """
CREATE TABLE place (only INTEGER PRIMARY KEY CHECK (only = 1), log TEXT NOT NULL, seq INTEGER NOT NULL);
INSERT INTO place VALUES (1, '', 0);
"""


class SqlitePublisher(Publisher, Resource):
    """The way into the event log. It prunes what every group has behind it, and nothing before there is a
    group.
    """

    def __init__(self, log: SqliteFile, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._since_pruning = PRUNE_INTERVAL

    async def open(self) -> None:
        """Raises `Misconfigured` where another process publishes to this log."""
        await self._log.open()
        await self._log.write(partial(_rename_older_copy, self._log.path))

    async def close(self) -> None:
        await self._log.close()

    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        now = self._clock()
        positions = await self._log.write(partial(_append, batch, milliseconds(now)))
        self._since_pruning += len(batch)
        if self._since_pruning >= PRUNE_INTERVAL:
            self._since_pruning = 0
            with suppress(Unavailable):  # what is published is published
                await self.prune()
        return [
            PublishResult(message, position, now) for message, position in zip(batch, positions, strict=True)
        ]

    async def prune(self) -> None:
        """Drop the events that every group has acknowledged."""
        await self._log.write(partial(_prune, self._log.path))


class SqliteSubscription(Subscription, Resource):
    """A group's way out of the log at that path, its place kept in a file of its own. One process a group."""

    def __init__(self, log: Path, place: SqliteFile, clock: Clock, pause: Sleep) -> None:
        self._path, self._place, self._clock, self._pause = log, place, clock, pause
        self._log: _OpenLog | None = None
        self._received_from = ""

    async def receive(self) -> Sequence[Delivery]:
        place = await self._place.read(
            lambda connection: connection.execute("SELECT log, seq FROM place").fetchone()
        )
        wait = MIN_POLL
        while not (batch := self._read_after(*place)):
            await self._pause(wait)
            wait = min(wait * POLL_BACKOFF, MAX_POLL)
        self._received_from = _log_and_seq(batch[-1])[0]
        return batch

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        log, seq = _log_and_seq(batch[-1])
        await self._place.write(partial(_advance, self._received_from, log, seq))

    def _read_after(self, log: str, seq: int) -> Sequence[Delivery]:
        """The next events, at once: a look at a local file is microseconds, and a thread's wake-up would cost
        more.
        """
        try:
            if self._log is None or self._log.is_replaced():
                self._close_log()
                self._log = _OpenLog(self._path)
            return self._log.read_after(log, seq, self._clock())
        except FileNotFoundError:
            return []  # nobody has published yet
        except sqlite3.Error as error:
            self._close_log()
            raise Unavailable(f"{self._path.name} does not answer: {error}") from error

    async def open(self) -> None:
        """Raises `Misconfigured` where another process serves this group."""
        await self._place.open()

    async def close(self) -> None:
        """Let go of both files."""
        self._close_log()
        await self._place.close()

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.connection.close()
            self._log = None


class _OpenLog:
    """Another process's event log, open for reading."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.stat()
        self.connection = read_only(path)
        version = self._version()
        if version != LOG_VERSION:
            self.connection.close()
            if version > LOG_VERSION:
                raise Misconfigured(
                    f"{path} was written by a newer version of this program (schema {version}): run that one"
                )
            raise FileNotFoundError(path)  # its maker is about to fill it

    def _version(self) -> int:
        try:
            return int(self.connection.execute("PRAGMA user_version").fetchone()[0])
        except sqlite3.Error:
            self.connection.close()
            raise

    def is_replaced(self) -> bool:
        return not os.path.samestat(self._file, self._path.stat())

    def read_after(self, log: str, seq: int, now: datetime) -> Sequence[Delivery]:
        """Up to a batch of events from behind that place; from the first where the place is in another
        log.
        """
        (found,) = self.connection.execute("SELECT id FROM log").fetchone()
        known = log == found
        rows = self.connection.execute(
            "SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (seq if known else 0, BATCH_SIZE)
        )
        return [_delivery(f"{found}/{row[0]}", row, now) for row in rows]


def _log_and_seq(delivery: Delivery) -> tuple[str, int]:
    log, _, seq = delivery.origin.position.partition("/")
    return log, int(seq)


def _advance(open_log: str, log: str, seq: int, connection: sqlite3.Connection) -> None:
    if log != open_log:
        return  # a log that was replaced has nothing to acknowledge any more
    known, place = connection.execute("SELECT log, seq FROM place").fetchone()
    connection.execute("UPDATE place SET log = ?, seq = ?", (log, max(seq, place) if known == log else seq))


def _append(batch: Sequence[Message], now: int, connection: sqlite3.Connection) -> Sequence[str]:
    (log,) = connection.execute("SELECT id FROM log").fetchone()
    insert = "INSERT INTO events (key, headers, value, published_at) VALUES (?,?,?,?)"
    rows = (
        (
            each.key,
            msgspec.json.encode([(name, content.decode()) for name, content in cloudevents.headers(each)]),
            each.data,
            now,
        )
        for each in batch
    )
    return [f"{log}/{connection.execute(insert, row).lastrowid}" for row in rows]


def _rename_older_copy(path: Path, connection: sqlite3.Connection) -> None:
    last = connection.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'events'").fetchone()[0] or 0
    if max(_places(path, connection), default=0) > last:
        connection.execute("UPDATE log SET id = lower(hex(randomblob(8)))")


def _prune(path: Path, connection: sqlite3.Connection) -> None:
    places = _places(path, connection)
    if places:
        connection.execute("DELETE FROM events WHERE seq <= ?", (min(places),))


def _places(path: Path, connection: sqlite3.Connection) -> Sequence[int]:
    """Where each registered group stands in this log."""
    (log,) = connection.execute("SELECT id FROM log").fetchone()
    return [_place(place, log) for place in path.parent.glob(f"{path.stem}.*{path.suffix}")]


def _place(path: Path, log: str) -> int:
    try:
        with closing(read_only(path)) as connection:
            kept_log, seq = connection.execute("SELECT log, seq FROM place").fetchone()
    except sqlite3.Error:
        return 0
    return int(seq) if kept_log == log else 0


def _delivery(position: str, row: Sequence[Any], now: datetime) -> Delivery:
    _, key, headers, value, published_at = row
    raw = tuple(
        (name, content.encode()) for name, content in msgspec.json.decode(headers, type=list[tuple[str, str]])
    )
    return Delivery(
        message=cloudevents.message(key.encode(), raw, value),
        origin=Origin(position=position, published_at=moment(published_at), received_at=now),
        key=key.encode(),
        headers=raw,
        value=value,
    )
