"""Charges in SQLite: financial.db. Money is whole cents, times are whole milliseconds."""

import sqlite3
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from uuid import UUID

from clinic.adapters.charge_waiters import ChargeWaiters
from clinic.adapters.sqlite.file import Row, SqliteFile, milliseconds, moment, placeholders
from clinic.domain.errors import NotFound
from clinic.domain.financial import ports as financial
from clinic.domain.financial.model import Charge, ChargeCursor
from clinic.domain.messaging.messages import Origin
from clinic.domain.money import Money


class SqliteCharges(financial.Charges):
    """Charges, in financial.db."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._waiters = ChargeWaiters(self._find)

    async def check(self) -> None:
        await self._file.check()

    async def add(self, charges: Sequence[Charge]) -> financial.AddResult:
        added = await self._file.write(partial(_add_charges, charges))
        self._waiters.notify(added)
        return added

    async def get(self, appointment_id: UUID) -> Charge:
        for charge in await self._find([appointment_id]):
            return charge
        raise NotFound(f"appointment {appointment_id} has no charge yet")

    async def wait_for(self, appointment_id: UUID, timeout: float) -> Charge:
        return await self._waiters.wait(appointment_id, timeout)

    async def page(
        self, matching: financial.ChargeFilter, limit: int, after: ChargeCursor | None = None
    ) -> Sequence[Charge]:
        conditions = [
            ("physician_id = ?", matching.physician_id),
            ("patient_id = ?", matching.patient_id),
            ("charged_at >= ?", matching.charged_from),
            ("charged_at < ?", matching.charged_to),
            ("(charged_at, appointment_id) < (?, ?)", after),
        ]
        # Of both, a patient has fewer charges than a physician: the planner has no statistics.
        source = "charges" if matching.patient_id is None else "charges INDEXED BY charges_of_a_patient"
        order = "charged_at DESC, appointment_id DESC"
        return await self._file.page(source, order, conditions, limit, _charge)

    async def by_appointment(self, limit: int, after: UUID | None = None) -> Sequence[Charge]:
        conditions = [("appointment_id < ?", after)]
        return await self._file.page("charges", "appointment_id DESC", conditions, limit, _charge)

    async def count(self) -> int:
        query = "SELECT count(*) FROM charges"
        return await self._file.read(lambda connection: int(connection.execute(query).fetchone()[0]))

    async def _find(self, ids: Sequence[UUID]) -> Sequence[Charge]:
        return await self._file.read(partial(_charges, ids))


def _add_charges(charges: Sequence[Charge], connection: sqlite3.Connection) -> financial.AddResult:
    insert = f"INSERT INTO charges VALUES ({placeholders(range(14))}) ON CONFLICT DO NOTHING"
    added, known = financial.AddResult([], []), []
    for charge in charges:
        if connection.execute(insert, _charge_row(charge)).rowcount:
            added.new.append(charge)
        else:
            known.append(charge.appointment_id)
    added.existing.extend(_charges(known, connection))
    return added


def _charges(ids: Sequence[UUID], connection: sqlite3.Connection) -> Sequence[Charge]:
    query = f"SELECT * FROM charges WHERE appointment_id IN ({placeholders(ids)})"
    return [_charge(row) for row in connection.execute(query, [id_.bytes for id_ in ids])]


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
        origin=Origin(
            position=row[10], published_at=moment(row[11]), received_at=moment(row[12]), attempts=row[13]
        ),
    )
