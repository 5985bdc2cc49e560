"""Dead letters in SQLite: in financial.db, beside the charges."""

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec

from clinic.adapters import cloudevents
from clinic.adapters.sqlite.file import Functions, Row, SqliteFile, milliseconds, moment, page, placeholders
from clinic.domain.errors import Conflict, NotFound
from clinic.domain.messaging.dead_letters import (
    MAX_NAME,
    DeadLetter,
    DeadLetterFilter,
    DeadLetters,
    HistoryEntry,
    LetterGroup,
    about,
    fingerprint,
)
from clinic.domain.messaging.messages import Message

DEAD_LETTERS = """
CREATE TABLE dead_letters (
    position TEXT PRIMARY KEY, message_id TEXT NOT NULL, key BLOB, headers BLOB NOT NULL, value BLOB,
    length INTEGER NOT NULL,
    sha256 TEXT NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL, first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL
) WITHOUT ROWID;
"""
HANDLINGS = """
ALTER TABLE dead_letters ADD COLUMN about TEXT NOT NULL DEFAULT '';
ALTER TABLE dead_letters ADD COLUMN type TEXT NOT NULL DEFAULT '';
ALTER TABLE dead_letters ADD COLUMN published_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letters ADD COLUMN "group" TEXT NOT NULL DEFAULT '';
ALTER TABLE dead_letters ADD COLUMN state TEXT NOT NULL DEFAULT 'waiting';
ALTER TABLE dead_letters ADD COLUMN handled BLOB NOT NULL DEFAULT '[]';
UPDATE dead_letters SET published_at = first_seen, "group" = fingerprint(reason),
    about = about_of(key, headers, value), type = type_of(key, headers, value);
CREATE INDEX dead_letters_in_a_state ON dead_letters (state, position);
CREATE INDEX dead_letters_in_a_state_of_a_group ON dead_letters (state, "group", position);
CREATE INDEX dead_letters_about ON dead_letters (about, position);
CREATE INDEX dead_letters_of_a_group ON dead_letters ("group", position, state, first_seen, last_seen,
reason);
"""
"""The index of the groups holds all that the list of groups shows: it reads no letter, however large."""

LISTED: Final = """position, message_id, key, headers, NULL, length, sha256, reason, attempts, first_seen,
last_seen,
    about, type, published_at, "group", state, handled"""
"""The columns in their order, without the value."""

_encoder = msgspec.msgpack.Encoder()
_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes | None], ...])
_handlings = msgspec.json.Decoder(tuple[HistoryEntry, ...])


class SqliteDeadLetters(DeadLetters):
    """Dead letters, in financial.db."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        await self._file.write(partial(_keep_letters, letters))

    async def get(self, position: str) -> DeadLetter:
        return await self._file.read(partial(_get, position))

    async def page(self, matching: DeadLetterFilter, limit: int, after: str = "") -> Sequence[DeadLetter]:
        conditions = [
            ("state = ?", matching.state),
            ('"group" = ?', matching.group),
            ("about = ?", matching.about),
            (f"message_id IN ({placeholders(matching.message_ids or ())})", matching.message_ids),
            ("position > ?", after),
        ]
        return await self._file.read(
            partial(page, "dead_letters", "position", conditions, limit, _letter, columns=LISTED)
        )

    async def groups(self) -> Sequence[LetterGroup]:
        return await self._file.read(_groups)

    async def record(self, letter: DeadLetter, entry: HistoryEntry) -> None:
        await self._file.write(partial(_record, letter, entry))


def _keep_letters(letters: Sequence[DeadLetter], connection: sqlite3.Connection) -> None:
    add = f"""INSERT INTO dead_letters VALUES ({placeholders(range(17))}) ON CONFLICT (position) DO UPDATE SET
        attempts = attempts + excluded.attempts, last_seen = excluded.last_seen, reason = excluded.reason,
        "group" = excluded."group" """
    connection.executemany(add, [_row(each) for each in letters])


def _get(position: str, connection: sqlite3.Connection) -> DeadLetter:
    for row in connection.execute("SELECT * FROM dead_letters WHERE position = ?", (position,)):
        return _letter(row)
    raise NotFound(f"there is no dead letter at {position}")


def _groups(connection: sqlite3.Connection) -> Sequence[LetterGroup]:
    query = """SELECT "group", sum(state = 'waiting'), sum(state = 'replayed'), sum(state = 'discarded'),
    min(reason),
        min(first_seen), max(last_seen) FROM dead_letters GROUP BY "group" ORDER BY "group" """
    return [_group(row) for row in connection.execute(query)]


def _group(row: Row) -> LetterGroup:
    group, waiting, replayed, discarded, reason, first_seen, last_seen = row
    return LetterGroup(
        group=group,
        waiting=waiting,
        replayed=replayed,
        discarded=discarded,
        reason=reason,
        first_seen=moment(first_seen),
        last_seen=moment(last_seen),
    )


def _record(letter: DeadLetter, entry: HistoryEntry, connection: sqlite3.Connection) -> None:
    kept = _get(letter.position, connection)
    if len(kept.history) != len(letter.history):
        raise Conflict(f"the dead letter at {letter.position} was handled by somebody else meanwhile")
    with_entry = kept.with_entry(entry)
    connection.execute(
        "UPDATE dead_letters SET state = ?, handled = ? WHERE position = ?",
        (with_entry.state, msgspec.json.encode(with_entry.history), letter.position),
    )


def _row(letter: DeadLetter) -> Row:
    return (
        letter.position,
        letter.message_id,
        letter.key,
        _encoder.encode(letter.headers),
        letter.value,
        letter.length,
        letter.sha256,
        letter.reason,
        letter.attempts,
        milliseconds(letter.first_seen),
        milliseconds(letter.last_seen),
        letter.about,
        letter.type,
        milliseconds(letter.published_at),
        letter.group,
        letter.state,
        msgspec.json.encode(letter.history),
    )


def _letter(row: Row) -> DeadLetter:
    return DeadLetter(
        position=row[0],
        message_id=row[1],
        key=row[2],
        headers=_headers.decode(row[3]),
        value=row[4],
        length=row[5],
        sha256=row[6],
        reason=row[7],
        attempts=row[8],
        first_seen=moment(row[9]),
        last_seen=moment(row[10]),
        about=row[11],
        type=row[12],
        published_at=moment(row[13]),
        group=row[14],
        state=row[15],
        history=_handlings.decode(row[16]),
    )


def _message(key: bytes | None, headers: bytes, value: bytes | None) -> Message:
    return cloudevents.message(key, _headers.decode(headers), value)


READING: Final[Functions] = {
    "fingerprint": fingerprint,
    "about_of": lambda key, headers, value: about(_message(key, headers, value)),
    "type_of": lambda key, headers, value: _message(key, headers, value).type[:MAX_NAME],
}
"""How letters from before there were handlings are read."""
