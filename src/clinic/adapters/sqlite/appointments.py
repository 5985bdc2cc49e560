"""Appointments and their outbox in SQLite. Money is whole cents, times are whole milliseconds."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec.structs import replace

from clinic.adapters import cloudevents
from clinic.adapters.group_commit import GroupCommit
from clinic.adapters.leases import Leases
from clinic.adapters.sqlite import file as sqlite
from clinic.adapters.sqlite.file import Row, SqliteFile, milliseconds, moment
from clinic.adapters.stored import attempt, event_of, restored
from clinic.domain.appointment import ports as appointment
from clinic.domain.appointment.model import Appointment
from clinic.domain.errors import ClinicError, Conflict, NotFound
from clinic.domain.messaging.messages import ClaimedMessage, Message, PublicationStatus, PublishResult
from clinic.domain.messaging.ports import Clock, Monotonic, Outbox, Waiting
from clinic.domain.money import Money

Operation = partial[Appointment | ClinicError]

COLUMNS: Final = ("id", "physician_id", "patient_id", "cents", "start", "end", "version")

_encoder = msgspec.msgpack.Encoder()
_message = msgspec.msgpack.Decoder(Message)
_row = msgspec.msgpack.Decoder(list)


class SqliteAppointments(appointment.Appointments, Outbox):
    """Appointments and their outbox, in appointment.db."""

    def __init__(
        self, file: SqliteFile, clock: Clock, lease: float, monotonic: Monotonic = monotonic
    ) -> None:
        self._file, self._clock = file, clock
        self._leases = Leases(lease, monotonic)
        self._commit = GroupCommit(self._write_group)
        self._load = GroupCommit(self._read_group, limit=100)

    async def check(self) -> None:
        await self._file.check()

    async def add(self, appointment: Appointment, *, once: bytes = b"") -> Appointment:
        return await self._commit(partial(_add, appointment, once))

    async def get(self, appointment_id: UUID) -> Appointment:
        return await self._load(appointment_id)

    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        return await self._commit(partial(_save, appointment, events, milliseconds(self._clock())))

    async def page(
        self, matching: appointment.AppointmentFilter, limit: int, after: UUID | None = None
    ) -> Sequence[Appointment]:
        conditions = [
            ("physician_id = ?", matching.physician_id),
            ("patient_id = ?", matching.patient_id),
            ('"end" IS NOT NULL', () if matching.finished else None),
            ('"end" IS NULL', () if matching.finished is False else None),
            ("start < ?", matching.started_before),
            ("id < ?", after),
        ]
        return await self._file.page(_source(matching), "id DESC", conditions, limit, _appointment)

    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        return await self._leases.claim(self._unpublished, limit)

    async def confirm(self, published: Sequence[PublishResult]) -> None:
        rows = [(milliseconds(result.at), result.position, result.message.id) for result in published]
        await self._file.write(partial(_confirm, rows))
        self._leases.release(result.message.id for result in published)

    async def waiting(
        self, limit: int, before: datetime | None = None, after: Waiting | None = None
    ) -> Sequence[Waiting]:
        conditions = [("saved_at < ?", before), ("(saved_at, subject) > (?, ?)", after)]
        place = "saved_at, subject"
        return await self._file.page("outbox", place, conditions, limit, _waiting, place)

    async def count(self, limit: int) -> int:
        query = "SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT ?)"
        return int(await self._file.read(lambda it: it.execute(query, (limit,)).fetchone()[0]))

    async def status(self, event: Message) -> PublicationStatus | None:
        return await self._file.read(partial(_status, event.id))

    async def _unpublished(self, limit: int) -> Sequence[tuple[datetime, Message]]:
        columns = "CAST(id AS TEXT), CAST(subject AS TEXT), CAST(message AS BLOB), CAST(saved_at AS INTEGER)"
        query = f"SELECT {columns} FROM outbox ORDER BY seq LIMIT ?"
        rows = await self._file.read(lambda connection: connection.execute(query, (limit,)).fetchall())
        return [
            (cloudevents.time(saved_at), event_of(event_id, subject, partial(_message.decode, message)))
            for event_id, subject, message, saved_at in rows
        ]

    async def _write_group(self, group: Sequence[Operation]) -> Sequence[Appointment | ClinicError]:
        try:
            return await self._file.write(lambda connection: [operation(connection) for operation in group])
        finally:
            if any(operation.func is _save for operation in group):
                self._leases.wake()  # also when it failed: its outcome is unknown

    async def _read_group(self, ids: Sequence[UUID]) -> Sequence[Appointment | ClinicError]:
        query = f"SELECT * FROM appointments WHERE id IN ({sqlite.placeholders(ids)})"
        keys = [id_.bytes for id_ in ids]
        rows = await self._file.read(lambda connection: sqlite.named_rows(connection, query, keys).fetchall())
        found = {UUID(bytes=row["id"]): attempt(_appointment, row) for row in rows}
        return [found.get(id_) or NotFound(f"there is no appointment {id_}") for id_ in ids]


def _source(matching: appointment.AppointmentFilter) -> str:
    """The table with the index that leaves the fewest rows to read: the planner has no statistics."""
    if matching.finished is False:
        return "appointments INDEXED BY appointments_open"
    if matching.patient_id is not None:
        return "appointments INDEXED BY appointments_of_a_patient"
    return "appointments"


def _add(appointment: Appointment, once: bytes, connection: sqlite3.Connection) -> Appointment | ClinicError:
    if once:
        query = "SELECT appointment FROM idempotency_keys WHERE key = ?"
        for (first,) in connection.execute(query, (once,)):
            return attempt(_reserved, (once, first))
    insert = "INSERT INTO appointments VALUES (?,?,?,?,?,?,?) ON CONFLICT DO NOTHING"
    row = (appointment.id.bytes, *_state(appointment), appointment.version)
    if not connection.execute(insert, row).rowcount:
        return Conflict(f"appointment {appointment.id} is known already")
    if once:
        connection.execute("INSERT INTO idempotency_keys VALUES (?,?)", (once, _encoder.encode(row)))
    return appointment


def _save(
    appointment: Appointment, events: Sequence[Message], now: int, connection: sqlite3.Connection
) -> Appointment | ClinicError:
    update = """UPDATE appointments SET physician_id = ?, patient_id = ?, cents = ?, start = ?, "end" = ?,
        version = version + 1 WHERE id = ? AND version = ?"""
    row = (*_state(appointment), appointment.id.bytes, appointment.version)
    if not connection.execute(update, row).rowcount:
        return Conflict(f"appointment {appointment.id} was saved by somebody else meanwhile")
    rows = [(event.id, event.subject, now, _encoder.encode(event)) for event in events]
    insert = "INSERT INTO outbox (id, subject, saved_at, message) VALUES (?,?,?,?) ON CONFLICT DO NOTHING"
    connection.executemany(insert, rows)
    return replace(appointment, version=appointment.version + 1)


def _state(appointment: Appointment) -> Row:
    end = None if appointment.end is None else milliseconds(appointment.end)
    ids = appointment.physician_id.bytes, appointment.patient_id.bytes
    return (*ids, appointment.price.cents, milliseconds(appointment.start), end)


def _confirm(rows: Sequence[Row], connection: sqlite3.Connection) -> None:
    note = "INSERT OR REPLACE INTO published SELECT id, subject, saved_at, ?, ? FROM outbox WHERE id = ?"
    connection.executemany(note, rows)
    connection.executemany("DELETE FROM outbox WHERE id = ?", [(row[-1],) for row in rows])


def _waiting(row: Any) -> Waiting:
    return moment(row["saved_at"]), str(row["subject"])


def _status(event_id: str, connection: sqlite3.Connection) -> PublicationStatus | None:
    # One statement sees one state; a republished event is in both tables, and counts as unpublished.
    query = """SELECT saved_at, NULL, NULL FROM outbox WHERE id = :id
        UNION ALL SELECT saved_at, published_at, position FROM published WHERE id = :id"""
    row = connection.execute(query, {"id": event_id}).fetchone()
    return row and PublicationStatus(moment(row[0]), None if row[1] is None else moment(row[1]), row[2])


def _reserved(kept: tuple[bytes, bytes]) -> Appointment:
    """From the row of a key."""
    return restored(
        Appointment, kept[0], lambda: _fields(dict(zip(COLUMNS, _row.decode(kept[1]), strict=True)))
    )


def _appointment(row: Any) -> Appointment:
    return restored(Appointment, row["id"], lambda: _fields(row))


def _fields(row: Any) -> dict[str, Any]:
    return sqlite.with_times(row, "start", "end") | {"price": Money.of_cents(row["cents"])}
