"""Dead letters in SQLite: in financial.db, beside the charges."""

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec
from msgspec.structs import asdict, replace

from clinic.adapters.sqlite.file import SqliteFile, milliseconds, named_rows, stored, with_times
from clinic.adapters.stored import restored
from clinic.domain.errors import Conflict, NotFound
from clinic.domain.messaging import dead_letters
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetterFilter, DeadLetters, HistoryEntry

COLUMNS: Final = tuple(name for name in DeadLetter.__struct_fields__ if name != "history")
NAMES: Final = ", ".join(f'"{name}"' for name in COLUMNS)
LISTED: Final = NAMES.replace('"value"', "NULL AS value")
ADD: Final = f"""INSERT INTO dead_letters ({NAMES}) VALUES ({", ".join(f":{name}" for name in COLUMNS)})
    ON CONFLICT (position) DO UPDATE SET
        reason = excluded.reason, code = excluded.code, "group" = excluded."group",
        attempts = attempts + (excluded.last_seen > last_seen),
        last_seen = max(last_seen, excluded.last_seen)"""
GROUPS: Final = """SELECT "group", sum(state = 'waiting') AS waiting, sum(state = 'replayed') AS replayed,
    sum(state = 'discarded') AS discarded, min(reason) AS reason, min(first_seen) AS first_seen,
    max(last_seen) AS last_seen FROM dead_letters GROUP BY "group" ORDER BY "group" """
SEEN: Final = ("first_seen", "last_seen")

_encoder = msgspec.msgpack.Encoder()
_headers = msgspec.msgpack.Decoder(dead_letters.Headers)


class SqliteDeadLetters(DeadLetters):
    """Dead letters, in financial.db."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        rows = [_row(letter) for letter in letters]
        await self._file.write(lambda connection: connection.executemany(ADD, rows))

    async def get(self, position: str) -> DeadLetter:
        return await self._file.read(partial(_get, position))

    async def page(self, matching: DeadLetterFilter, limit: int, after: str = "") -> Sequence[DeadLetter]:
        equal = [(f'"{name}" = ?', value) for name, value in asdict(matching).items()]
        conditions = [*equal, ("position > ?", after)]
        return await self._file.page("dead_letters", "position", conditions, limit, _letter, LISTED)

    async def groups(self) -> Sequence[dead_letters.LetterGroup]:
        return await self._file.read(
            lambda connection: [
                restored(dead_letters.LetterGroup, row["group"], partial(with_times, row, *SEEN))
                for row in named_rows(connection, GROUPS)
            ]
        )

    async def record(self, letter: DeadLetter, entry: HistoryEntry) -> None:
        await self._file.write(partial(_record, letter, entry))

    async def history(
        self, limit: int, after: dead_letters.HistoryCursor | None = None
    ) -> Sequence[dead_letters.RecordedEntry]:
        order, behind = "at DESC, position DESC, number DESC", [("(at, position, number) < (?, ?, ?)", after)]
        return await self._file.page("dead_letter_history", order, behind, limit, _recorded)


def _get(position: str, connection: sqlite3.Connection) -> DeadLetter:
    query = f"SELECT {NAMES} FROM dead_letters WHERE position = ?"
    for row in named_rows(connection, query, (position,)):
        letter = _letter(row)
        return replace(letter, history=_history(letter, connection))
    raise NotFound(f"there is no dead letter at {position}")


def _history(letter: DeadLetter, connection: sqlite3.Connection) -> tuple[HistoryEntry, ...]:
    # Only the entries that the letter counts: another process may have added one since the letter was read.
    query = f"""SELECT * FROM dead_letter_history WHERE position = ? AND number < ?
        ORDER BY number DESC LIMIT {dead_letters.MAX_HISTORY}"""
    rows = named_rows(connection, query, (letter.position, letter.entries)).fetchall()
    return tuple(_recorded(row)[1] for row in reversed(rows))


def _recorded(row: Any) -> dead_letters.RecordedEntry:
    entry = restored(HistoryEntry, row["position"], partial(with_times, row, "at"))
    return dead_letters.HistoryCursor(entry.at, row["position"], row["number"]), entry


def _record(letter: DeadLetter, entry: HistoryEntry, connection: sqlite3.Connection) -> None:
    kept = _get(letter.position, connection)
    if kept.entries != letter.entries:
        raise Conflict(f"the dead letter at {letter.position} was handled by somebody else")
    row = (letter.position, letter.entries, entry.event, entry.by, milliseconds(entry.at), entry.note)
    connection.execute("INSERT INTO dead_letter_history VALUES (?, ?, ?, ?, ?, ?)", row)
    after = kept.with_entry(entry)
    update = "UPDATE dead_letters SET state = ?, entries = ? WHERE position = ?"
    connection.execute(update, (after.state, after.entries, letter.position))


def _row(letter: DeadLetter) -> dict[str, Any]:
    columns = {name: stored(value) for name, value in asdict(letter).items()}
    return columns | {"headers": _encoder.encode(letter.headers)}


def _letter(row: Any) -> DeadLetter:
    def fields() -> dict[str, Any]:
        kept = {"headers": _headers.decode(row["headers"]), "cut": bool(row["cut"])}
        return with_times(row, "published_at", *SEEN) | kept

    return restored(DeadLetter, row["position"], fields)
