"""The SQLite stores keep every promise, and what is special to a file."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import datetime, timedelta
from functools import partial
from itertools import count, product
from pathlib import Path
from random import uniform
from time import monotonic
from typing import ClassVar
from uuid import UUID, uuid4

import msgspec
import pytest
from msgspec.structs import asdict

from clinic.adapters.memory.transport import MemoryLog, MemoryPublisher
from clinic.adapters.sqlite.appointments import SqliteAppointments
from clinic.adapters.sqlite.charges import SqliteCharges
from clinic.adapters.sqlite.dead_letters import SqliteDeadLetters
from clinic.adapters.sqlite.file import SqliteFile, T, Work, connect, scripts, transaction
from clinic.domain.appointment.ports import AppointmentFilter
from clinic.domain.errors import ClinicError, Unavailable
from clinic.domain.events import FINISHED_V1
from clinic.domain.financial.model import ChargeCursor
from clinic.domain.financial.ports import ChargeFilter
from clinic.domain.messaging.dead_letters import MAX_VALUE, DeadLetterFilter, HistoryCursor, HistoryEntry
from clinic.domain.messaging.relay import Relay
from clinic.domain.money import Money
from clinic.testing.appointments import AppointmentsContract
from clinic.testing.builders import (
    ONE_O_CLOCK,
    TWO_O_CLOCK,
    RecordedTelemetry,
    a_charge,
    a_history_entry,
    a_letter,
    a_message,
    an_appointment,
    now,
    opened,
    running,
)
from clinic.testing.charges import ChargesContract
from clinic.testing.dead_letters import DeadLettersContract
from clinic.testing.outbox import LONG, hand_over, published, saved

REFILL = "INSERT INTO published VALUES (?,?,?,?,?)"


class TestSqliteAppointments(AppointmentsContract):
    several = False

    @asynccontextmanager
    async def opened(self, where: Path, lease: float) -> AsyncIterator[SqliteAppointments]:
        async with opened(SqliteFile(where / "appointment.db", *scripts("appointment"))) as file:
            yield SqliteAppointments(file, now, lease)

    @asynccontextmanager
    async def unanswering(self, where: Path) -> AsyncIterator[SqliteAppointments]:
        yield SqliteAppointments(SqliteFile(where / "appointment.db", *scripts("appointment")), now, LONG)


class TestSqliteCharges(ChargesContract):
    files: ClassVar[dict[Path, SqliteFile]] = {}

    @asynccontextmanager
    async def opened(self, where: Path) -> AsyncIterator[SqliteCharges]:
        # A file is one process's; what its other instances find is what an outside writer has put there.
        async with opened(
            self.files.setdefault(where, SqliteFile(where / "financial.db", *scripts("financial")))
        ) as file:
            yield SqliteCharges(file)

    @asynccontextmanager
    async def unanswering(self, where: Path) -> AsyncIterator[SqliteCharges]:
        yield SqliteCharges(SqliteFile(where / "financial.db", *scripts("financial")))


@pytest.mark.parametrize(
    "spoil",
    [
        "message = X'c1'",
        "message = 'a text'",
        "message = CAST(X'ff' AS TEXT)",
        "message = 7",
        "message = X''",
        "message = (SELECT substr(message, 1, 20) FROM outbox)",
        "message = (SELECT message FROM outbox ORDER BY seq LIMIT 1)",
        "subject = 'another'",
        "message = X'c1', subject = CAST(X'ff' AS TEXT)",
        "message = X'c1', saved_at = 'yesterday'",
        f"message = X'c1', saved_at = {2**62}",
    ],
)
async def test_an_event_that_cannot_be_read_stays_is_named_and_the_rest_goes_on(
    tmp_path: Path, spoil: str
) -> None:
    file = SqliteFile(tmp_path / "appointment.db", *scripts("appointment"))
    telemetry = RecordedTelemetry()
    log = MemoryLog()
    async with opened(file):
        store = SqliteAppointments(file, now, 0.05)
        messages = [await saved(store) for _ in range(3)]
        await file.write(
            lambda connection: connection.execute(
                f"UPDATE outbox SET {spoil} WHERE id = ?", (messages[1].id,)
            )
        )
        relay = Relay(store, MemoryPublisher(log, now), asyncio.sleep, telemetry, monotonic, uniform)
        async with running(relay.run()), asyncio.timeout(5):
            await telemetry.seen("published", 2)
            await telemetry.seen("cannot be published", 2)  # again, after its lease
            later = await saved(store)
            await telemetry.seen("published", 3)
            assert messages[1].id in (relay.problem or "")
        stored = await file.read(lambda connection: connection.execute("SELECT id FROM outbox").fetchall())
    assert stored == [(messages[1].id,)]
    assert {message.id for _, message in log.entries} == {messages[0].id, messages[2].id, later.id}


class TestSqliteDeadLetters(DeadLettersContract):
    several = False

    @asynccontextmanager
    async def opened(self, where: Path) -> AsyncIterator[SqliteDeadLetters]:
        async with opened(letters_file(where)) as file:
            yield SqliteDeadLetters(file)

    @asynccontextmanager
    async def unanswering(self, where: Path) -> AsyncIterator[SqliteDeadLetters]:
        yield SqliteDeadLetters(letters_file(where))


def letters_file(where: Path) -> SqliteFile:
    return SqliteFile(where / "financial.db", *scripts("financial"))


async def test_charges_letters_and_their_history_survive_an_older_file(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "financial.db")) as connection:
        connection.executescript((Path(__file__).parent / "files/financial-2.sql").read_text())
    async with opened(letters_file(tmp_path)) as file:
        letters, charges = SqliteDeadLetters(file), SqliteCharges(file)
        waiting, discarded = [await letters.get(position) for position in ("log/2", "log/3")]
        assert [each.total for each in await charges.by_appointment(10)] == [Money("400.00")]
        (group,) = await letters.groups()
        await letters.record(discarded, again := a_history_entry())
        assert (await letters.get("log/3")).history == (*discarded.history, again)
    failed = HistoryEntry("failed again", "anna", ONE_O_CLOCK + timedelta(milliseconds=123), 'it\'s "odd"\nü')
    assert discarded.history == (
        failed,
        HistoryEntry("discarded", "bob", TWO_O_CLOCK + timedelta(hours=1), "a test"),
    )
    assert (discarded.state, discarded.entries, discarded.cut) == ("discarded", 2, False)
    assert (group.group, group.waiting, group.discarded) == ("9c1185a5", 1, 1)
    assert waiting == a_letter(
        position="log/2",
        about=str(UUID(int=2)),
        type=FINISHED_V1,
        message_id="2",
        headers=(("ce_id", b"1"), ("odd", None)),
        value=b"{",
        sha256="0" * 64,
        code="",
        group="9c1185a5",
        attempts=2,
        last_seen=TWO_O_CLOCK,
    )


async def test_an_older_file_gets_the_schema_of_a_new_one(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    with closing(sqlite3.connect(old / "financial.db")) as connection:
        connection.executescript((Path(__file__).parent / "files/financial-2.sql").read_text())
    columns = """SELECT m.name, c.name, c.type FROM sqlite_master m, pragma_table_info(m.name) c
        WHERE m.type IN ('table', 'index') ORDER BY m.name, c.name"""
    found = []
    for folder in (old, new):
        async with opened(letters_file(folder)) as file:
            found.append(await file.read(lambda connection: connection.execute(columns).fetchall()))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("wanted", "index", "by"),
    [
        (DeadLetterFilter("waiting"), "dead_letters_in_a_state", "state=? AND position>?"),
        (DeadLetterFilter(group="bad"), "dead_letters_of_a_group", "group=? AND position>?"),
        (
            DeadLetterFilter("waiting", "bad"),
            "dead_letters_in_a_state_of_a_group",
            "state=? AND group=? AND position>?",
        ),
        (DeadLetterFilter(about="one"), "dead_letters_about", "about=? AND position>?"),
        (
            DeadLetterFilter("waiting", about="one", message_id="1"),
            "dead_letters_about",
            "about=? AND position>?",
        ),
    ],
)
async def test_a_list_of_dead_letters_reads_an_index_in_its_order(
    tmp_path: Path, wanted: DeadLetterFilter, index: str, by: str
) -> None:
    queries: list[str] = []
    async with opened(letters_file(tmp_path)) as file:
        await file.read(lambda connection: connection.set_trace_callback(queries.append))
        await SqliteDeadLetters(file).page(wanted, 10, "log/1")
        (query,) = (each for each in queries if each.startswith("SELECT"))
        plan = await file.read(
            lambda connection: connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
        )
    assert [row[3] for row in plan] == [f"SEARCH dead_letters USING INDEX {index} ({by})"]


def bytes_read() -> int:
    """By this process, of whatever files."""
    return int(Path("/proc/self/io").read_text().split()[1])


async def test_a_list_of_dead_letters_reads_no_value_however_large(tmp_path: Path) -> None:
    async with opened(letters_file(tmp_path)) as file:
        letters = SqliteDeadLetters(file)
        await letters.add(
            [a_letter(position=f"log/{n}", value=bytes(MAX_VALUE), length=MAX_VALUE) for n in range(20)]
        )
        before = bytes_read()
        assert len(await letters.page(DeadLetterFilter("waiting"), 100)) == 20
        listed = bytes_read() - before
        await letters.get("log/7")
        assert listed < MAX_VALUE <= bytes_read() - before - listed


async def test_the_history_of_all_letters_costs_no_more_with_a_longer_one(tmp_path: Path) -> None:
    async with opened(letters_file(tmp_path)) as file:
        letters, letter = SqliteDeadLetters(file), a_letter()
        await letters.add([letter])

        async def grow(entries: int) -> None:
            nonlocal letter
            for _ in range(entries):
                at = TWO_O_CLOCK + timedelta(seconds=letter.entries)
                await letters.record(letter, entry := a_history_entry(event="failed again", at=at))
                letter = letter.with_entry(entry)

        async def costs() -> list[int]:
            middle = HistoryCursor(TWO_O_CLOCK + timedelta(seconds=15), letter.position, 15)
            return [await steps_of(file, partial(letters.history, 10, after)) for after in (None, middle)]

        await grow(30)
        short = await costs()
        await grow(200)
        assert await costs() == pytest.approx(short, rel=0.1)


BUSY_PHYSICIAN, QUIET_PATIENT = uuid4(), uuid4()


def busy_or(other: UUID, number: int) -> UUID:
    """One of them for every second number."""
    return BUSY_PHYSICIAN if number % 2 else other


async def steps_of(file: SqliteFile, listing: Callable[[], Awaitable[object]]) -> int:
    """How many steps SQLite's machine takes for a list."""
    steps: list[None] = []
    await file.read(lambda connection: connection.set_progress_handler(lambda: steps.append(None), 1))
    await listing()
    await file.read(lambda connection: connection.set_progress_handler(None, 1))
    return len(steps)


async def test_no_list_of_appointments_costs_more_with_a_longer_history(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "appointment.db", *scripts("appointment"))) as file:
        store = SqliteAppointments(file, now, LONG)

        async def grow(count: int) -> None:
            made = (an_appointment(physician_id=busy_or(uuid4(), n), end=TWO_O_CLOCK) for n in range(count))
            await asyncio.gather(*(store.add(each) for each in made))

        async def costs() -> list[int]:
            return [
                await steps_of(
                    file, partial(store.page, AppointmentFilter(physician, patient, ended, before), 10, after)
                )
                for physician, patient, (ended, before), after in product(
                    (None, BUSY_PHYSICIAN),
                    (None, QUIET_PATIENT),
                    ((None, None), (True, None), (False, None), (False, TWO_O_CLOCK)),
                    (None, middle.id),
                )
            ]

        await grow(300)
        middle = (await store.page(AppointmentFilter(), 150))[-1]
        for ended in (None, TWO_O_CLOCK):
            await store.add(an_appointment(patient_id=QUIET_PATIENT, end=ended))
        short = await costs()
        await grow(900)
        assert [(a, b) for a, b in zip(short, await costs(), strict=True) if b > 1.2 * a + 20] == []
        assert len(short) == 32


async def test_the_list_of_what_waits_costs_as_much_with_any_backlog(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "appointment.db", *scripts("appointment"))) as file:
        store = SqliteAppointments(file, now, LONG)

        async def costs() -> list[int]:
            shapes = product((None, places[150][0], now()), (None, places[100]))
            return [await steps_of(file, partial(store.waiting, 10, *shape)) for shape in shapes]

        await asyncio.gather(*(saved(store) for _ in range(200)))
        places = await store.waiting(200)
        short = await costs()
        await asyncio.gather(*(saved(store) for _ in range(800)))
        assert [(a, b) for a, b in zip(short, await costs(), strict=True) if b > 1.2 * a + 20] == []
        assert len(short) == 6


async def test_no_list_of_charges_costs_more_with_a_longer_history(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "financial.db", *scripts("financial"))) as file:
        store, times = SqliteCharges(file), count(1)

        def at(number: int) -> datetime:
            return TWO_O_CLOCK + timedelta(seconds=number)

        async def grow(more: int) -> None:
            made = [
                a_charge(physician_id=busy_or(uuid4(), n), charged_at=at(next(times))) for n in range(more)
            ]
            await store.add(made)

        async def costs() -> list[int]:
            return [
                await steps_of(
                    file, partial(store.page, ChargeFilter(physician, patient, since, until), 10, after)
                )
                for physician, patient, since, until, after in product(
                    (None, BUSY_PHYSICIAN),
                    (None, QUIET_PATIENT),
                    (None, at(100)),
                    (None, at(200)),
                    (None, ChargeCursor(at(150), UUID(int=0))),
                )
            ]

        await grow(300)
        await store.add([a_charge(patient_id=QUIET_PATIENT, charged_at=at(150))])
        short = await costs()
        await grow(900)
        assert [(a, b) for a, b in zip(short, await costs(), strict=True) if b > 1.2 * a + 20] == []
        assert len(short) == 32


@pytest.mark.parametrize("version", [1, 2, 3])
async def test_a_file_of_an_older_schema_goes_on(tmp_path: Path, version: int) -> None:
    path, still_open = tmp_path / "appointment.db", an_appointment()
    async with opened(SqliteFile(path, *scripts("appointment")[:version])) as file:
        older = SqliteAppointments(file, now, LONG)
        await older.add(still_open)
        await older.add(an_appointment(end=TWO_O_CLOCK))
        message = await saved(older)
        fields = {name: value for name, value in asdict(message).items() if name != "extensions"}
        as_it_was = msgspec.msgpack.encode(fields)
        await file.write(lambda own: own.execute("UPDATE outbox SET message = ?", (as_it_was,)))
    async with opened(SqliteFile(path, *scripts("appointment"))) as file:
        newer = SqliteAppointments(file, now, LONG)
        assert still_open in await newer.page(AppointmentFilter(finished=False), 10)
        added = [await newer.add(an_appointment(), once=b"key") for _ in range(2)]
        assert added[0] == added[1]
        assert await hand_over(newer, 1) == [message]


class ForgetfulFile(SqliteFile):
    """Loses its answer on the way back: the commit is on the disk, its caller does not know."""

    forgetful = False

    async def write(self, work: Work[T]) -> T:
        result = await super().write(work)
        if self.forgetful:
            raise Unavailable("who knows")
        return result


async def test_what_a_save_with_an_unknown_outcome_did_keep_is_handed_over(tmp_path: Path) -> None:
    async with opened(ForgetfulFile(tmp_path / "appointment.db", *scripts("appointment"))) as file:
        store = SqliteAppointments(file, now, LONG)
        await store.add(started := an_appointment())
        file.forgetful = True
        with pytest.raises(Unavailable):
            await store.save(started, message := a_message())
        assert await hand_over(store, 1) == [message]


async def test_a_confirm_with_an_unknown_outcome_can_be_repeated(tmp_path: Path) -> None:
    async with opened(ForgetfulFile(tmp_path / "appointment.db", *scripts("appointment"))) as file:
        store = SqliteAppointments(file, now, LONG)
        message = await saved(store)
        file.forgetful = True
        for _ in range(2):
            with pytest.raises(Unavailable):
                await store.confirm(published(message))
        assert await store.oldest() is None


async def test_a_commit_that_fails_is_unknown_for_the_whole_group_and_keeps_none_of_it(
    tmp_path: Path,
) -> None:
    async with opened(SqliteFile(tmp_path / "appointment.db", *scripts("appointment"))) as file:
        store = SqliteAppointments(file, now, LONG)
        started = [an_appointment() for _ in range(5)]
        await asyncio.gather(*(store.add(each) for each in started))
        await file.write(fill_the_disk)
        large = a_message(data=b"x" * 1024 * 1024)
        saves = [store.save(each, large if each is started[2] else a_message()) for each in started]
        outcomes = await asyncio.gather(*saves, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unavailable] * 5
        assert [await store.get(each.id) for each in started] == started
        assert await store.oldest() is None


def fill_the_disk(connection: sqlite3.Connection) -> None:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages + 2}")


async def test_after_a_failed_commit_the_store_goes_on(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "financial.db", *scripts("financial"))) as file:
        charges, charge = SqliteCharges(file), a_charge()
        await file.write(fill_the_disk)
        with pytest.raises(Unavailable):
            await charges.add([a_charge(pricing="x" * 100_000), charge])
        await file.write(lambda connection: connection.execute("PRAGMA max_page_count=1000000").fetchall())
        assert (await charges.add([charge])).new == [charge]


async def test_confirming_notes_where_an_event_was_published(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "appointment.db", *scripts("appointment"))) as file:
        store = SqliteAppointments(file, now, LONG)
        message = await saved(store)
        (place,) = published(message)
        await store.confirm([place])
        await store.confirm([place])
        query = "SELECT id, subject, position FROM published"
        rows = await file.read(lambda connection: connection.execute(query).fetchall())
        assert rows == [(message.id, message.subject, place.position)]


async def test_an_outside_writer_gets_its_turn_beside_a_hot_one(tmp_path: Path) -> None:
    path = tmp_path / "appointment.db"
    async with opened(SqliteFile(path, *scripts("appointment")[:1])) as file:
        store, done = SqliteAppointments(file, now, LONG), asyncio.Event()

        async def keep_writing() -> int:
            added = 0
            while not done.is_set():
                await store.add(an_appointment())
                added += 1
            return added

        writers = [asyncio.create_task(keep_writing()) for _ in range(4)]
        await asyncio.to_thread(write_from_outside, path, 20)
        done.set()
        hot = sum(await asyncio.gather(*writers))
        (rows,) = await file.read(
            lambda connection: connection.execute("SELECT count(*) FROM appointments").fetchone()
        )
        (noted,) = await file.read(
            lambda connection: connection.execute("SELECT count(*) FROM published").fetchone()
        )
        assert (rows, noted) == (hot, 20)
        assert hot > 0


def write_from_outside(path: Path, times: int) -> None:
    with closing(connect(path)) as connection:
        for number in range(times):
            row = (str(number), "", 0, 0, "")
            transaction(connection, lambda own, row=row: own.execute(REFILL, row))  # type: ignore[misc]


async def test_concurrent_saves_share_a_commit(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "appointment.db", *scripts("appointment"))) as file:
        commits: list[str] = []
        store = SqliteAppointments(file, now, LONG)
        await file.write(lambda connection: connection.set_trace_callback(commits.append))
        commits.clear()
        outcomes = await asyncio.gather(
            *(store.add(an_appointment()) for _ in range(100)), return_exceptions=True
        )
        assert not any(isinstance(outcome, ClinicError) for outcome in outcomes)
        assert commits.count("COMMIT") < 5
