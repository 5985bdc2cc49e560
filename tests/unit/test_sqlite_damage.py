"""A row that something else has written into fails alone, as one of the domain's errors, and by its name."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest

from clinic.adapters.sqlite.appointments import SqliteAppointments
from clinic.adapters.sqlite.charges import SqliteCharges
from clinic.adapters.sqlite.dead_letters import SqliteDeadLetters
from clinic.adapters.sqlite.file import SqliteFile, scripts
from clinic.domain.appointment.ports import AppointmentFilter
from clinic.domain.errors import Refused, Unreadable
from clinic.domain.financial.model import Charge
from clinic.domain.financial.ports import ChargeFilter
from clinic.domain.messaging.dead_letters import DeadLetterFilter
from clinic.domain.messaging.retry import bisect_refused
from clinic.testing.builders import a_charge, a_history_entry, a_letter, an_appointment, now, opened
from clinic.testing.outbox import LONG

NO_TEXT = "CAST(X'ff' AS TEXT)"


async def spoil(file: SqliteFile, table: str, change: str, key: str, of: object) -> None:
    """As somebody does with SQLite's own command."""

    def update(connection: sqlite3.Connection) -> int:
        return connection.execute(f"UPDATE {table} SET {change} WHERE {key} = ?", (of,)).rowcount

    assert await file.write(update) == 1


@pytest.mark.parametrize(
    "change",
    [
        "physician_id = 'anna'",
        f"patient_id = {NO_TEXT}",
        "cents = 'much'",
        "cents = -1",
        "cents = 1.5",
        "start = 'noon'",
        f"start = {2**62}",
        "\"end\" = X'00'",
        "version = 'last'",
    ],
)
async def test_an_appointment_that_cannot_be_read_fails_alone(tmp_path: Path, change: str) -> None:
    async with opened(SqliteFile(tmp_path / "appointment.db", *scripts("appointment"))) as file:
        store = SqliteAppointments(file, now, LONG)
        damaged, sound = [await store.add(an_appointment(), once=once) for once in (b"1", b"2")]
        await spoil(file, "appointments", change, "id", damaged.id.bytes)

        failure, read = await asyncio.gather(
            store.get(damaged.id), store.get(sound.id), return_exceptions=True
        )

        assert read == sound
        assert isinstance(failure, Unreadable)
        assert damaged.id.hex in str(failure)
        with pytest.raises(Unreadable, match=damaged.id.hex):
            await store.page(AppointmentFilter(), 10)


@pytest.mark.parametrize(
    "change", ["appointment = X'c1'", "appointment = 'a text'", "appointment = X'91a161'"]
)
async def test_a_reservation_that_cannot_be_read_fails_alone(tmp_path: Path, change: str) -> None:
    async with opened(SqliteFile(tmp_path / "appointment.db", *scripts("appointment"))) as file:
        store = SqliteAppointments(file, now, LONG)
        await store.add(an_appointment(), once=b"key")
        await spoil(file, "idempotency_keys", change, "key", b"key")

        failure, added = await asyncio.gather(
            store.add(an_appointment(), once=b"key"),
            store.add(new := an_appointment(), once=b"another"),
            return_exceptions=True,
        )

        assert added == new
        assert isinstance(failure, Unreadable)


@pytest.mark.parametrize(
    "change",
    [
        "hours = 'many'",
        "hours = '1/0'",
        f"pricing = X'ff', position = {NO_TEXT}",
        "total_cents = 'much'",
        "charged_at = 'late'",
        "attempts = 'many'",
    ],
)
async def test_a_charge_that_cannot_be_read_fails_alone(tmp_path: Path, change: str) -> None:
    async with opened(SqliteFile(tmp_path / "financial.db", *scripts("financial"))) as file:
        store = SqliteCharges(file)
        damaged, sound, new = (a_charge(appointment_id=UUID(int=number)) for number in (1, 2, 3))
        await store.add([damaged, sound])
        await spoil(file, "charges", change, "appointment_id", damaged.appointment_id.bytes)

        async def add(batch: Sequence[Charge]) -> None:
            await store.add(batch)

        refused = await bisect_refused([damaged, sound, new], add)
        failure, *found = await asyncio.gather(
            *(store.wait_for(UUID(int=number), 5) for number in (1, 2, 3)), return_exceptions=True
        )

        assert [charge for charge, _ in refused] == [damaged]
        assert found == [sound, new]
        assert isinstance(failure, Unreadable)
        with pytest.raises(Unreadable, match=damaged.appointment_id.hex):
            await store.page(ChargeFilter(), 10)


@pytest.mark.parametrize(
    "change",
    [
        "headers = X'c1'",
        "headers = 'none'",
        "first_seen = 'early'",
        "state = 'lost'",
        "value = 'a text'",
    ],
)
async def test_a_dead_letter_that_cannot_be_read_keeps_none_from_being_kept(
    tmp_path: Path, change: str
) -> None:
    async with opened(SqliteFile(tmp_path / "financial.db", *scripts("financial"))) as file:
        letters = SqliteDeadLetters(file)
        damaged, sound = (a_letter(position=f"log/{number}") for number in (1, 2))
        await letters.add([damaged])
        await spoil(file, "dead_letters", change, "position", "log/1")

        await letters.add([damaged, sound])

        assert await letters.get("log/2") == sound
        with pytest.raises(Unreadable, match="log/1"):
            await letters.get("log/1")


async def test_no_damage_to_dead_letters_leaves_the_tree_of_errors(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "financial.db", *scripts("financial"))) as file:
        letters = SqliteDeadLetters(file)
        await letters.add([letter := a_letter()])
        await letters.record(letter, a_history_entry())
        await spoil(file, "dead_letter_history", "at = 'noon'", "position", letter.position)
        with pytest.raises(Refused):
            await letters.get(letter.position)
        await spoil(file, "dead_letters", "last_seen = 'noon'", "position", letter.position)
        with pytest.raises(Refused):
            await letters.groups()
        with pytest.raises(Refused):
            await letters.page(DeadLetterFilter(), 10)
