"""Dead letters in SQLite: in financial.db, beside the charges."""

import sqlite3
from collections.abc import Sequence
from functools import partial

import msgspec

from clinic.adapters.sqlite_file import Row, SqliteFile, marks, milliseconds, moment
from clinic.domain.messaging import DeadLetter, DeadLetters

DEAD_LETTERS = """
CREATE TABLE dead_letters (
    position TEXT PRIMARY KEY, message_id TEXT NOT NULL, key BLOB, headers BLOB NOT NULL, value BLOB, length INTEGER NOT NULL,
    sha256 TEXT NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL, first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL
) WITHOUT ROWID;
"""

_encoder = msgspec.msgpack.Encoder()
_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes | None], ...])


class SqliteDeadLetters(DeadLetters):
    """Dead letters, in financial.db."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def keep(self, letters: Sequence[DeadLetter]) -> None:
        await self._file.write(partial(_keep_letters, letters))

    async def page(self, limit: int, after: str = "") -> Sequence[DeadLetter]:
        query = "SELECT * FROM dead_letters WHERE position > ? ORDER BY position LIMIT ?"
        rows = await self._file.read(lambda connection: connection.execute(query, (after, limit)).fetchall())
        return [_letter(row) for row in rows]


def _keep_letters(letters: Sequence[DeadLetter], connection: sqlite3.Connection) -> None:
    keep = f"""INSERT INTO dead_letters VALUES ({marks(range(11))}) ON CONFLICT (position) DO UPDATE SET
        attempts = attempts + excluded.attempts, last_seen = excluded.last_seen, reason = excluded.reason"""
    for each in letters:
        seen = each.attempts, milliseconds(each.first_seen), milliseconds(each.last_seen)
        headers = _encoder.encode(each.headers)
        connection.execute(
            keep, (each.position, each.message_id, each.key, headers, each.value, each.length, each.sha256, each.reason, *seen)
        )


def _letter(row: Row) -> DeadLetter:
    position, message_id, key, headers, value, length, sha256, reason, attempts, first_seen, last_seen = row
    return DeadLetter(
        position=position,
        message_id=message_id,
        key=key,
        headers=_headers.decode(headers),
        value=value,
        length=length,
        sha256=sha256,
        reason=reason,
        attempts=attempts,
        first_seen=moment(first_seen),
        last_seen=moment(last_seen),
    )
