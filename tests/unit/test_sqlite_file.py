"""One file, one serving process, every commit on the disk."""

import asyncio
import errno
import os
import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.folders import copied

from clinic.adapters.sqlite.file import SqliteFile, is_served, milliseconds, moment
from clinic.domain.errors import Misconfigured, Unavailable
from clinic.testing.builders import opened

NOTES = "CREATE TABLE notes (note TEXT)"
WHEN = "ALTER TABLE notes ADD COLUMN at INTEGER NOT NULL DEFAULT 7"


def insert(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO notes VALUES ('a')")


def count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM notes").fetchone()[0])


def is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


async def test_a_second_serving_process_is_refused(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)):
        with pytest.raises(Misconfigured, match="another process"):
            await SqliteFile(tmp_path / "notes.db", NOTES).open()


async def test_the_next_process_is_served_once_the_first_has_let_go(tmp_path: Path) -> None:
    for _ in range(2):
        async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
            await file.write(insert)
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
        assert await file.read(count) == 2


async def test_opening_or_closing_twice_does_nothing(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
        await file.open()
        await file.write(insert)
        await file.close()
    with pytest.raises(Unavailable, match="closed"):
        await file.read(count)
    with pytest.raises(Unavailable, match="closed"):
        await file.write(insert)


async def test_a_file_of_a_newer_schema_is_refused_and_let_go(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES, WHEN)) as file:
        await file.write(lambda connection: connection.execute("INSERT INTO notes VALUES ('a', 1)"))
    with pytest.raises(Misconfigured, match="newer"):
        await SqliteFile(tmp_path / "notes.db", NOTES).open()
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES, WHEN)) as file:
        assert await file.read(count) == 1


async def test_a_file_of_an_older_schema_is_brought_up_to_date_with_what_is_in_it(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
        await file.write(insert)
    for _ in range(2):
        async with opened(SqliteFile(tmp_path / "notes.db", NOTES, WHEN)) as file:
            rows = await file.read(lambda connection: connection.execute("SELECT * FROM notes").fetchall())
            assert rows == [("a", 7)]


@pytest.mark.parametrize("thread", ["read", "write"])
async def test_a_thread_that_hangs_is_a_failure_and_no_check_passes(
    tmp_path: Path, thread: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinic.adapters.sqlite.file.ANSWER_TIMEOUT", 0.05)
    released = threading.Event()
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
        try:
            with pytest.raises(Unavailable, match=r"notes\.db does not answer within"):
                await getattr(file, thread)(lambda _: released.wait())
            with pytest.raises(Unavailable, match=r"notes\.db does not answer within"):
                await file.check()
        finally:
            released.set()


async def test_a_check_never_marks_an_older_schema_as_todays(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
        await file.write(insert)
    older = tmp_path / "older.db"
    copied(tmp_path / "notes.db", older)
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES, WHEN)) as file:
        await file.check()
        copied(older, tmp_path / "notes.db")
        with pytest.raises(Unavailable, match="schema 1, and 2 is needed"):
            await file.check()
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES, WHEN)) as file:
        await file.check()
        assert await file.read(lambda connection: connection.execute("SELECT at FROM notes").fetchone()) == (
            7,
        )


async def test_a_visitor_reads_and_writes_beside_the_process_that_serves_the_file(tmp_path: Path) -> None:
    attached = SqliteFile(tmp_path / "notes.db", NOTES)
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
        await file.write(insert)
        await attached.attach()
        await attached.write(insert)
        await attached.close()
        assert await file.read(count) == 2


async def test_a_visitor_makes_no_file_and_changes_no_schema(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="CLINIC_DATA_DIR"):
        await SqliteFile(tmp_path / "notes.db", NOTES).attach()
    assert is_empty(tmp_path)
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)):
        pass
    with pytest.raises(Misconfigured, match="schema 1, and 2 is needed: start its service anew"):
        await SqliteFile(tmp_path / "notes.db", NOTES, WHEN).attach()
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES, WHEN)):
        pass
    with pytest.raises(Misconfigured, match=r"newer version of this program \(schema 2\): run that one"):
        await SqliteFile(tmp_path / "notes.db", NOTES).attach()


async def test_what_is_no_database_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_bytes(b"something else entirely " * 100)
    with pytest.raises(Unavailable):
        await SqliteFile(tmp_path / "notes.db", NOTES).open()


async def test_a_folder_that_cannot_be_made_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="CLINIC_DATA_DIR"):
        await SqliteFile(tmp_path / "file" / "notes.db", NOTES).open()


async def test_every_commit_is_on_the_disk(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
        for pragma, expected in (
            ("journal_mode", "wal"),
            ("synchronous", 2),
            ("fullfsync", 1),
            ("checkpoint_fullfsync", 1),
        ):
            query = f"PRAGMA {pragma}"
            found = await file.write(lambda own, query=query: own.execute(query).fetchone())  # type: ignore[misc]
            assert found == (expected,)


async def test_only_its_owner_can_take_the_lock(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)):
        assert stat.S_IMODE((tmp_path / "notes.db.lock").stat().st_mode) == 0o600


async def test_work_that_fails_leaves_nothing_and_the_file_goes_on(tmp_path: Path) -> None:
    def half(connection: sqlite3.Connection) -> None:
        insert(connection)
        raise ZeroDivisionError

    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
        with pytest.raises(ZeroDivisionError):
            await file.write(half)
        await file.write(insert)
        assert await file.read(count) == 1


async def test_a_write_waits_for_the_write_of_another_process_to_end(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
        with closing(sqlite3.connect(tmp_path / "notes.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("INSERT INTO notes VALUES ('b')")
            write = asyncio.create_task(file.write(insert))
            assert await file.read(count) == 0  # readers need not wait
            other.execute("COMMIT")
        await write
        assert await file.read(count) == 2


async def test_cancelling_the_wait_does_not_stop_work_that_has_begun(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait(10)
        insert(connection)

    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
        write = asyncio.create_task(file.write(slow))
        await asyncio.to_thread(begun.wait, 10)
        write.cancel()
        await asyncio.wait([write])
        go_on.set()
        await file.write(insert)
        assert await file.read(count) == 2


async def test_closing_ends_the_work_under_way(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait(10)
        insert(connection)

    file = SqliteFile(tmp_path / "notes.db", NOTES)
    await file.open()
    write = asyncio.create_task(file.write(slow))
    await asyncio.to_thread(begun.wait, 10)
    closing_file = asyncio.create_task(file.close())
    go_on.set()
    await closing_file
    await write
    async with opened(file):
        assert await file.read(count) == 1


async def test_closing_leaves_no_open_descriptors(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
        await file.write(insert)
    assert not [name for name in descriptors() if name.startswith(str(tmp_path))]


def descriptors() -> list[str]:
    return [str(link.resolve()) for link in Path("/proc/self/fd").iterdir()]


@pytest.mark.parametrize("kept", [-62_135_596_800_000, -1, 0, 1, 1_606_827_600_001])
def test_a_moment_is_kept_in_whole_milliseconds(kept: int) -> None:
    assert milliseconds(moment(kept)) == kept


def move(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace_by_a_copy(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def rename_the_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("renamed"))


@pytest.mark.parametrize("sibling", ["", "-wal", "-shm", ".lock"])
@pytest.mark.parametrize("lose", [Path.unlink, move, replace_by_a_copy, rename_the_folder])
async def test_a_file_lost_beneath_its_service_is_noticed(
    tmp_path: Path, lose: Callable[[Path], object], sibling: str
) -> None:
    path = tmp_path / "data" / "notes.db"
    async with opened(SqliteFile(path, NOTES)) as file:
        await file.write(insert)
        file.check_alive()
        lose(path.with_name(path.name + sibling))
        for call in (file.write(insert), file.read(count), file.check()):
            with pytest.raises(Unavailable, match="moved, removed or replaced"):
                await call
        with pytest.raises(Unavailable, match="moved, removed or replaced"):
            file.check_alive()


async def test_what_is_in_a_lost_write_ahead_log_is_saved_before_the_process_can_die(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    async with opened(SqliteFile(path, NOTES)) as file:
        await file.write(insert)
        path.with_name("notes.db-wal").unlink()
        with pytest.raises(Unavailable):
            await file.check()
        shutil.copy(path, tmp_path / "left")  # all that a process finds once this one was killed
    with closing(sqlite3.connect(tmp_path / "left")) as left:
        assert count(left) == 1


async def test_a_process_without_descriptors_left_has_no_answer_and_goes_on(tmp_path: Path) -> None:
    def fails(_: sqlite3.Connection) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
        with pytest.raises(Unavailable, match="Too many open files"):
            await file.write(fails)
        await file.write(insert)


class EndsItsThread:
    """Work that its thread is not prepared for."""

    def run(self) -> None:
        raise GeneratorExit("unforeseen")


@pytest.mark.parametrize("which", ["_writer", "_reader"])
async def test_a_thread_that_has_ended_is_no_outage_that_passes(tmp_path: Path, which: str) -> None:
    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
        await file.check()
        file.check_alive()
        thread = getattr(file, which)
        thread._executor._work_queue.put(EndsItsThread())  # noqa: SLF001
        await asyncio.to_thread(thread._threads[0].join)  # noqa: SLF001
        with pytest.raises(RuntimeError, match=r"the thread of notes\.db has ended"):
            file.check_alive()


async def test_a_file_lost_during_a_write_is_not_reported_as_success(tmp_path: Path) -> None:
    def lose_it(connection: sqlite3.Connection) -> None:
        insert(connection)
        move(tmp_path / "notes.db")

    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
        with pytest.raises(Unavailable, match="moved, removed or replaced"):
            await file.write(lose_it)


@pytest.mark.parametrize("sibling", ["", "-wal"])
async def test_a_file_emptied_in_place_takes_nothing_more(tmp_path: Path, sibling: str) -> None:
    path = tmp_path / "notes.db"
    async with opened(SqliteFile(path, NOTES)) as file:
        await file.write(insert)
        os.truncate(f"{path}{sibling}", 0)
        for call in (file.check(), file.write(insert), file.check()):
            with pytest.raises(Unavailable, match="emptied"):
                await call
        assert path.with_name(f"notes.db{sibling}").stat().st_size == 0


async def test_a_log_emptied_during_a_write_is_not_reported_as_success(tmp_path: Path) -> None:
    def empty_it(connection: sqlite3.Connection) -> None:
        insert(connection)
        os.truncate(tmp_path / "notes.db-wal", 0)

    async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
        await file.write(insert)
        with pytest.raises(Unavailable, match="emptied"):
            await file.write(empty_it)


async def test_a_log_that_a_backup_has_emptied_takes_writes(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    async with opened(SqliteFile(path, NOTES)) as file:
        for counted in range(1, 4):
            await file.write(insert)
            with closing(sqlite3.connect(path)) as other:
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            assert path.with_name("notes.db-wal").stat().st_size == 0
            assert await file.read(count) == counted
        await file.check()


async def test_a_link_is_guarded_as_the_file_that_it_names(tmp_path: Path) -> None:
    linked = tmp_path / "linked.db"
    linked.symlink_to(tmp_path / "notes.db")
    async with opened(SqliteFile(linked, NOTES)) as file:
        await file.write(insert)
        with pytest.raises(Misconfigured, match="another process"):
            await SqliteFile(tmp_path / "notes.db", NOTES).open()
        assert is_served(linked)
        assert is_served(tmp_path / "notes.db")
        (tmp_path / "notes.db-wal").unlink()
        with pytest.raises(Unavailable, match="moved, removed or replaced"):
            await file.write(insert)


async def test_a_file_that_is_put_back_serves_again(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    async with opened(SqliteFile(path, NOTES)) as file:
        path.rename(tmp_path / "elsewhere")
        with pytest.raises(Unavailable):
            await file.write(insert)
        (tmp_path / "elsewhere").rename(path)
        await file.write(insert)
        assert await file.read(count) == 1


async def test_a_read_sees_one_state_while_another_process_writes(tmp_path: Path) -> None:
    with closing(
        sqlite3.connect(tmp_path / "notes.db", isolation_level=None, check_same_thread=False)
    ) as other:

        def twice(connection: sqlite3.Connection) -> tuple[int, int]:
            before = count(connection)
            insert(other)
            return before, count(connection)

        async with opened(SqliteFile(tmp_path / "notes.db", NOTES)) as file:
            assert await file.read(twice) == (0, 0)
            assert await file.read(count) == 1
