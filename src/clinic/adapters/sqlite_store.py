"""Both contexts' stores in SQLite: appointment.db and financial.db. Money is whole cents, times are whole milliseconds."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from fractions import Fraction
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from msgspec.structs import replace

from clinic.adapters.arrivals import Arrivals
from clinic.adapters.group_commit import GroupCommit
from clinic.adapters.leases import Leases
from clinic.adapters.sqlite_file import SqliteFile, milliseconds, moment
from clinic.domain.appointment import ports as appointment
from clinic.domain.appointment.model import Appointment
from clinic.domain.errors import ClinicError, Conflict, NotFound
from clinic.domain.financial import ports as financial
from clinic.domain.financial.model import Charge, Place
from clinic.domain.messaging import Claimed, Clock, DeadLetter, DeadLetters, Message, Origin, Outbox, Published
from clinic.domain.money import Money

APPOINTMENTS = """
CREATE TABLE appointments (
    id BLOB PRIMARY KEY, physician_id BLOB NOT NULL, patient_id BLOB NOT NULL, cents INTEGER NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER, version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX appointments_of_a_physician ON appointments (physician_id, id);
CREATE INDEX appointments_of_a_patient ON appointments (patient_id, id);
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, subject TEXT NOT NULL, saved_at INTEGER NOT NULL, message BLOB NOT NULL
);
CREATE TABLE published (
    id TEXT PRIMARY KEY, subject TEXT NOT NULL, saved_at INTEGER NOT NULL, published_at INTEGER NOT NULL, position TEXT NOT NULL
) WITHOUT ROWID;
"""

CHARGES = """
CREATE TABLE charges (
    appointment_id BLOB PRIMARY KEY, physician_id BLOB NOT NULL, patient_id BLOB NOT NULL, cents INTEGER NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, pricing TEXT NOT NULL, hours TEXT NOT NULL, total_cents INTEGER NOT NULL,
    charged_at INTEGER NOT NULL,
    position TEXT NOT NULL, published_at INTEGER NOT NULL, received_at INTEGER NOT NULL, attempts INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX charges_by_time ON charges (charged_at, appointment_id);
CREATE INDEX charges_of_a_physician ON charges (physician_id, charged_at, appointment_id);
CREATE INDEX charges_of_a_patient ON charges (patient_id, charged_at, appointment_id);
CREATE TABLE dead_letters (
    position TEXT PRIMARY KEY, message_id TEXT NOT NULL, key BLOB, headers BLOB NOT NULL, value BLOB, length INTEGER NOT NULL,
    sha256 TEXT NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL, first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL
) WITHOUT ROWID;
"""

T = TypeVar("T")
Row = Sequence[Any]
Operation = Callable[[sqlite3.Connection], Appointment | ClinicError]


class SqliteAppointments(appointment.Appointments, Outbox):
    """Appointments and their outbox, in appointment.db."""

    def __init__(self, file: SqliteFile, clock: Clock, lease: float) -> None:
        self._file, self._clock = file, clock
        self._leases = Leases(lease)
        self._commit = GroupCommit(self._write_group)
        self._load = GroupCommit(self._read_group, limit=100)

    async def check(self) -> None:
        await self._file.check()

    async def add(self, appointment: Appointment) -> None:
        await self._commit(partial(_add, appointment))

    async def get(self, appointment_id: UUID) -> Appointment:
        return await self._load(appointment_id)

    async def save(self, appointment: Appointment, *facts: Message) -> Appointment:
        return await self._commit(partial(_save, appointment, facts, milliseconds(self._clock())))

    async def page(self, wanted: appointment.Wanted, limit: int, after: UUID | None = None) -> Sequence[Appointment]:
        conditions = [
            ("physician_id = ?", wanted.physician_id and wanted.physician_id.bytes),
            ("patient_id = ?", wanted.patient_id and wanted.patient_id.bytes),
            ('("end" IS NOT NULL) = ?', wanted.finished),
            ("id < ?", after and after.bytes),
        ]
        return await self._file.read(partial(_page, "appointments", "id DESC", conditions, limit, _appointment))

    async def claim(self, limit: int) -> Sequence[Claimed]:
        return await self._leases.claim(self._unpublished, limit)

    async def confirm(self, published: Sequence[Published]) -> None:
        rows = [(milliseconds(each.at), each.position, each.message.id) for each in published]
        await self._file.write(partial(_confirm, rows))
        self._leases.release(each.message.id for each in published)

    async def oldest(self) -> datetime | None:
        row = await self._file.read(lambda connection: connection.execute("SELECT saved_at FROM outbox ORDER BY seq LIMIT 1").fetchone())
        return moment(row[0]) if row else None

    async def _unpublished(self, limit: int) -> Sequence[Message]:
        rows = await self._file.read(
            lambda connection: connection.execute("SELECT message FROM outbox ORDER BY seq LIMIT ?", (limit,)).fetchall()
        )
        return [_message.decode(row[0]) for row in rows]

    async def _write_group(self, group: Sequence[Operation]) -> Sequence[Appointment | ClinicError]:
        try:
            return await self._file.write(lambda connection: [operation(connection) for operation in group])
        finally:
            self._leases.wake()  # also when it failed: its outcome is unknown

    async def _read_group(self, ids: Sequence[UUID]) -> Sequence[Appointment | ClinicError]:
        query = f"SELECT * FROM appointments WHERE id IN ({_marks(ids)})"
        rows = await self._file.read(lambda connection: connection.execute(query, [each.bytes for each in ids]).fetchall())
        found = {row[0]: row for row in rows}
        return [_appointment(found[each.bytes]) if each.bytes in found else NotFound(f"there is no appointment {each}") for each in ids]


class SqliteCharges(financial.Charges):
    """Charges, in financial.db."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._arrivals = Arrivals(self._find)

    async def check(self) -> None:
        await self._file.check()

    async def add(self, charges: Sequence[Charge]) -> financial.Added:
        added = await self._file.write(partial(_add_charges, charges))
        self._arrivals.announce(added)
        return added

    async def get(self, appointment_id: UUID) -> Charge:
        for charge in await self._find([appointment_id]):
            return charge
        raise NotFound(f"appointment {appointment_id} has no charge yet")

    async def arrived(self, appointment_id: UUID, within: float) -> Charge:
        return await self._arrivals.wait(appointment_id, within)

    async def page(self, wanted: financial.Wanted, limit: int, after: Place | None = None) -> Sequence[Charge]:
        conditions = [
            ("physician_id = ?", wanted.physician_id and wanted.physician_id.bytes),
            ("patient_id = ?", wanted.patient_id and wanted.patient_id.bytes),
            ("charged_at >= ?", wanted.charged_from and milliseconds(wanted.charged_from)),
            ("charged_at < ?", wanted.charged_to and milliseconds(wanted.charged_to)),
            ("(charged_at, appointment_id) < (?, ?)", after and (milliseconds(after[0]), after[1].bytes)),
        ]
        return await self._file.read(partial(_page, "charges", "charged_at DESC, appointment_id DESC", conditions, limit, _charge))

    async def _find(self, ids: Sequence[UUID]) -> Sequence[Charge]:
        return await self._file.read(partial(_charges, ids))


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


def _add(appointment: Appointment, connection: sqlite3.Connection) -> Appointment | ClinicError:
    insert = "INSERT INTO appointments VALUES (?,?,?,?,?,?,?) ON CONFLICT DO NOTHING"
    row = (appointment.id.bytes, *_state(appointment), appointment.version)
    return appointment if connection.execute(insert, row).rowcount else Conflict(f"appointment {appointment.id} is known already")


def _save(appointment: Appointment, facts: Sequence[Message], now: int, connection: sqlite3.Connection) -> Appointment | ClinicError:
    # Where the version has moved on, the row does not match and there is no error: its facts must not be kept either.
    update = """UPDATE appointments SET physician_id = ?, patient_id = ?, cents = ?, start = ?, "end" = ?, version = version + 1
        WHERE id = ? AND version = ?"""
    if not connection.execute(update, (*_state(appointment), appointment.id.bytes, appointment.version)).rowcount:
        return Conflict(f"appointment {appointment.id} was saved by somebody else meanwhile")
    rows = [(fact.id, fact.subject, now, _encoder.encode(fact)) for fact in facts]
    connection.executemany("INSERT INTO outbox (id, subject, saved_at, message) VALUES (?,?,?,?) ON CONFLICT DO NOTHING", rows)
    return replace(appointment, version=appointment.version + 1)


def _state(appointment: Appointment) -> Row:
    end = None if appointment.end is None else milliseconds(appointment.end)
    ids = appointment.physician_id.bytes, appointment.patient_id.bytes
    return (*ids, appointment.price.cents, milliseconds(appointment.start), end)


def _confirm(rows: Sequence[Row], connection: sqlite3.Connection) -> None:
    note = "INSERT OR REPLACE INTO published SELECT id, subject, saved_at, ?, ? FROM outbox WHERE id = ?"
    connection.executemany(note, rows)
    connection.executemany("DELETE FROM outbox WHERE id = ?", [(each[-1],) for each in rows])


def _appointment(row: Row) -> Appointment:
    id_, physician_id, patient_id, cents, start, end, version = row
    return Appointment(
        id=UUID(bytes=id_),
        physician_id=UUID(bytes=physician_id),
        patient_id=UUID(bytes=patient_id),
        price=Money.of_cents(cents),
        start=moment(start),
        end=None if end is None else moment(end),
        version=version,
    )


def _add_charges(charges: Sequence[Charge], connection: sqlite3.Connection) -> financial.Added:
    insert = f"INSERT INTO charges VALUES ({_marks(range(14))}) ON CONFLICT DO NOTHING"
    added, known = financial.Added([], []), []
    for charge in charges:
        if connection.execute(insert, _charge_row(charge)).rowcount:
            added.new.append(charge)
        else:
            known.append(charge.appointment_id)
    added.standing.extend(_charges(known, connection))
    return added


def _charges(ids: Sequence[UUID], connection: sqlite3.Connection) -> Sequence[Charge]:
    query = f"SELECT * FROM charges WHERE appointment_id IN ({_marks(ids)})"
    return [_charge(row) for row in connection.execute(query, [each.bytes for each in ids])]


def _charge_row(charge: Charge) -> Row:
    return (
        charge.appointment_id.bytes,
        charge.physician_id.bytes,
        charge.patient_id.bytes,
        charge.price.cents,
        milliseconds(charge.start),
        milliseconds(charge.end),
        charge.pricing,
        str(charge.hours),
        charge.total.cents,
        milliseconds(charge.charged_at),
        charge.origin.position,
        milliseconds(charge.origin.published_at),
        milliseconds(charge.origin.received_at),
        charge.origin.attempts,
    )


def _charge(row: Row) -> Charge:
    return Charge(
        appointment_id=UUID(bytes=row[0]),
        physician_id=UUID(bytes=row[1]),
        patient_id=UUID(bytes=row[2]),
        price=Money.of_cents(row[3]),
        start=moment(row[4]),
        end=moment(row[5]),
        pricing=row[6],
        hours=Fraction(row[7]),
        total=Money.of_cents(row[8]),
        charged_at=moment(row[9]),
        origin=Origin(position=row[10], published_at=moment(row[11]), received_at=moment(row[12]), attempts=row[13]),
    )


def _keep_letters(letters: Sequence[DeadLetter], connection: sqlite3.Connection) -> None:
    keep = f"""INSERT INTO dead_letters VALUES ({_marks(range(11))}) ON CONFLICT (position) DO UPDATE SET
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


def _page(
    table: str,
    order: str,
    conditions: Sequence[tuple[str, Any]],
    limit: int,
    read: Callable[[Row], T],
    connection: sqlite3.Connection,
) -> Sequence[T]:
    """The conditions that are set, all of them; a value that is a tuple fills several marks."""
    wanted = [(condition, value) for condition, value in conditions if value is not None]
    where = " AND ".join(condition for condition, _ in wanted) or "true"
    values = [each for _, value in wanted for each in (value if isinstance(value, tuple) else (value,))]
    query = f"SELECT * FROM {table} WHERE {where} ORDER BY {order} LIMIT ?"
    return [read(row) for row in connection.execute(query, [*values, limit])]


_encoder = msgspec.msgpack.Encoder()
_message = msgspec.msgpack.Decoder(Message)
_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes | None], ...])


def _marks(values: Iterable[object]) -> str:
    return ",".join("?" for _ in values)
