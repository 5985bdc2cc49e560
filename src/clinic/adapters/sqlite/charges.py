"""Charges in SQLite: financial.db. Money is whole cents, times are whole milliseconds."""

import sqlite3
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Any, Final
from uuid import UUID

from msgspec.structs import asdict

from clinic.adapters.charge_waiters import ChargeLookup
from clinic.adapters.sqlite.file import SqliteFile, named_rows, placeholders, stored, with_times
from clinic.adapters.stored import restored
from clinic.domain.financial import ports as financial
from clinic.domain.financial.model import Charge, ChargeCursor
from clinic.domain.money import Money

COLUMNS: Final = (
    *("appointment_id", "physician_id", "patient_id", "cents", "start", "end", "pricing", "hours"),
    *("total_cents", "charged_at", "position", "published_at", "received_at", "attempts"),
)
ADD: Final = f"INSERT INTO charges VALUES (:{', :'.join(COLUMNS)}) ON CONFLICT DO NOTHING"


class SqliteCharges(ChargeLookup):
    """Charges, in financial.db."""

    def __init__(self, file: SqliteFile) -> None:
        super().__init__()
        self._file = file

    async def check(self) -> None:
        await self._file.check()

    async def add(self, charges: Sequence[Charge]) -> financial.AddResult:
        added = await self._file.write(partial(_add_charges, charges))
        self._waiters.notify(added)
        return added

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
    added, known = financial.AddResult([], []), []
    for charge in charges:
        if connection.execute(ADD, _charge_row(charge)).rowcount:
            added.new.append(charge)
        else:
            known.append(charge.appointment_id)
    added.existing.extend(_charges(known, connection))
    return added


def _charges(ids: Sequence[UUID], connection: sqlite3.Connection) -> Sequence[Charge]:
    query = f"SELECT * FROM charges WHERE appointment_id IN ({placeholders(ids)})"
    return [_charge(row) for row in named_rows(connection, query, [id_.bytes for id_ in ids])]


def _charge_row(charge: Charge) -> dict[str, Any]:
    amounts = {"cents": charge.price.cents, "total_cents": charge.total.cents, "hours": str(charge.hours)}
    columns = asdict(charge) | asdict(charge.origin) | amounts
    return {name: stored(columns[name]) for name in COLUMNS}


def _charge(row: Any) -> Charge:
    def fields() -> dict[str, Any]:
        columns = with_times(row, "start", "end", "charged_at", "published_at", "received_at")
        amounts = {"price": Money.of_cents(row["cents"]), "total": Money.of_cents(row["total_cents"])}
        return {**columns, **amounts, "hours": Fraction(row["hours"]), "origin": columns}

    return restored(Charge, row["appointment_id"], fields)
