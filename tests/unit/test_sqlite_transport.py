"""The SQLite transport keeps every promise, and what is special to a log in a file."""

import asyncio
import fcntl
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from support.folders import copied

from clinic.adapters.sqlite.file import SqliteFile, scripts
from clinic.adapters.sqlite.transport import (
    PRUNE,
    PRUNE_INTERVAL,
    PUBLISHER_TIMEOUT,
    SqlitePublisher,
    SqliteSubscription,
)
from clinic.domain.errors import Misconfigured, Unavailable
from clinic.domain.messaging.messages import Delivery
from clinic.entrypoints.technologies.sqlite import TRANSPORT
from clinic.testing.builders import StandingMonotonic, a_message, now, opened
from clinic.testing.transports import TransportContract

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@asynccontextmanager
async def subscribed(where: Path, group: str = "group") -> AsyncIterator[SqliteSubscription]:
    place = SqliteFile(where / f"events.{group}.db", *scripts("group"))
    subscription = SqliteSubscription(where / "events.db", place, now, asyncio.sleep)
    async with opened(subscription):
        yield subscription


@asynccontextmanager
async def publishing(where: Path) -> AsyncIterator[SqlitePublisher]:
    async with opened(SqlitePublisher(SqliteFile(where / "events.db", *scripts("events")), now)) as publisher:
        yield publisher


class TestSqliteTransport(TransportContract):
    transport = TRANSPORT

    async def remove(self, where: Path) -> None:
        lose(where / "events.db")

    @asynccontextmanager
    async def interrupted(self, where: Path) -> AsyncIterator[None]:
        offsets = where / "events.group.db"
        offsets.rename(where / "elsewhere")
        yield
        (where / "elsewhere").rename(offsets)


async def take(subscription: SqliteSubscription) -> Sequence[Delivery]:
    batch = await subscription.receive()
    await subscription.acknowledge(batch)
    return batch


def lose(log: Path) -> None:
    for each in log.parent.glob(f"{log.name}*"):
        each.unlink()


def sequence(delivery: Delivery) -> int:
    return int(delivery.origin.position.partition("/")[2])


async def test_a_group_has_one_serving_process(tmp_path: Path) -> None:
    async with subscribed(tmp_path):
        with pytest.raises(Misconfigured):
            async with subscribed(tmp_path):
                pass


async def test_a_subscription_waits_for_a_log_that_nobody_has_made_yet(tmp_path: Path) -> None:
    async with subscribed(tmp_path) as subscription:
        waiting = asyncio.create_task(subscription.receive())
        await asyncio.sleep(0)
        async with publishing(tmp_path) as publisher:
            await publisher.publish([message := a_message()])
            assert [each.message for each in await waiting] == [message]


async def test_a_log_that_is_still_empty_of_its_tables_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "events.db").touch()
    async with subscribed(tmp_path) as subscription:
        waiting = asyncio.create_task(subscription.receive())
        await asyncio.sleep(0)
        async with publishing(tmp_path) as publisher:
            await publisher.publish([message := a_message()])
            assert [each.message for each in await waiting] == [message]


@pytest.mark.parametrize("before", ["no log", "an old log", "a file without tables"])
async def test_a_log_that_nobody_publishes_to_for_long_is_a_failure(tmp_path: Path, before: str) -> None:
    if before == "an old log":
        async with publishing(tmp_path):
            pass
    elif before == "a file without tables":
        (tmp_path / "events.db").touch()
    clock = StandingMonotonic()
    place = SqliteFile(tmp_path / "events.group.db", *scripts("group"))
    async with opened(SqliteSubscription(tmp_path / "events.db", place, now, asyncio.sleep, clock)) as group:
        waiting = asyncio.create_task(group.receive())
        await asyncio.sleep(0.05)
        assert not waiting.done()  # the other service may start later
        clock.seconds += PUBLISHER_TIMEOUT + 1
        for attempt in (waiting, group.receive(), group.receive()):
            with pytest.raises(Unavailable, match=r"nobody publishes to .*events\.db"):
                await asyncio.wait_for(attempt, 5)
        async with publishing(tmp_path) as publisher:
            clock.seconds += 1
            assert await group.receive() == []  # the failure is over
            await publisher.publish([message := a_message()])
            assert [each.message for each in await take(group)] == [message]
            clock.seconds += 10 * PUBLISHER_TIMEOUT
            await publisher.publish([a_message()])
            assert len(await take(group)) == 1
            waiting = asyncio.create_task(group.receive())
            await asyncio.sleep(0.05)
            assert not waiting.done()  # its publisher is idle, and there
            waiting.cancel()


async def test_a_log_that_is_served_and_cannot_be_told_for_one_is_a_failure(tmp_path: Path) -> None:
    clock = StandingMonotonic()
    place = SqliteFile(tmp_path / "events.group.db", *scripts("group"))
    async with publishing(tmp_path) as publisher:
        await publisher.publish([message := a_message()])
        with closing(sqlite3.connect(tmp_path / "events.db")) as by_hand:
            by_hand.execute("PRAGMA user_version=0")
        group = SqliteSubscription(tmp_path / "events.db", place, now, asyncio.sleep, clock)
        async with opened(group):
            clock.seconds += PUBLISHER_TIMEOUT + 1
            with pytest.raises(Unavailable, match=r"events\.db, or it is no log"):
                await group.receive()
            with pytest.raises(Unavailable, match="cannot be read"):
                await group.lag()
            with closing(sqlite3.connect(tmp_path / "events.db")) as by_hand:
                by_hand.execute("PRAGMA user_version=1")
            assert [each.message for each in await group.receive()] == [message]


async def test_a_log_whose_wal_was_removed_is_left_to_the_publisher_that_saves_it(
    tmp_path: Path,
) -> None:
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as group:
        await publisher.publish([message := a_message()])
        assert [each.message for each in await group.receive()] == [message]
        (tmp_path / "events.db-wal").unlink()
        with pytest.raises(Unavailable, match="-wal was moved, removed"):
            await group.receive()  # first: it looks far more often
        with pytest.raises(Unavailable, match="removed"):
            await publisher.publish([a_message()])
        shutil.copy(tmp_path / "events.db", tmp_path / "left")  # all that a kill leaves
    with closing(sqlite3.connect(tmp_path / "left")) as left:
        assert left.execute("SELECT count(*) FROM events").fetchone() == (1,)


async def test_the_lag_behind_a_log_that_nobody_publishes_to_is_known(tmp_path: Path) -> None:
    clock = StandingMonotonic()
    place = SqliteFile(tmp_path / "events.group.db", *scripts("group"))
    async with publishing(tmp_path) as publisher:
        await publisher.publish([a_message()])
    async with opened(SqliteSubscription(tmp_path / "events.db", place, now, asyncio.sleep, clock)) as group:
        await group.acknowledge(await group.receive())
        clock.seconds += PUBLISHER_TIMEOUT + 1
        with pytest.raises(Unavailable, match="nobody publishes"):
            await group.receive()
        assert await group.lag() == 0


async def test_a_folder_that_is_none_for_a_moment_is_no_end(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    place = SqliteFile(tmp_path / "events.group.db", *scripts("group"))
    group = SqliteSubscription(tmp_path / "log" / "events.db", place, now, asyncio.sleep)
    async with opened(group):
        with pytest.raises(Unavailable, match="Not a directory"):
            await group.receive()


@pytest.mark.parametrize(
    ("column", "stored", "kept"),
    [
        ("key", "CAST(X'ff00' AS TEXT)", b"\xff\x00"),
        ("key", "X'ff'", b"\xff"),
        ("key", "7", b"7"),
        ("value", "'a text'", b"a text"),
        ("value", "CAST(X'ff' AS TEXT)", b"\xff"),
        ("value", "1.5", b"1.5"),
        ("headers", "'no list'", b"no list"),
        ("headers", "X'5b5b22ff22'", b'[["\xff"'),
        ("headers", "'[[1, 2]]'", b"[[1, 2]]"),
        ("headers", "CAST(X'ff' AS TEXT)", b"\xff"),
        ("published_at", str(2**62), date.max),
        ("published_at", str(-(2**62)), EPOCH.date()),
        ("published_at", "'yesterday'", EPOCH.date()),
        ("published_at", "X'ff'", EPOCH.date()),
    ],
)
async def test_what_something_else_has_written_to_the_log_is_handed_over_with_its_bytes(
    tmp_path: Path, column: str, stored: str, kept: object
) -> None:
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        await publisher.publish([a_message(), before := a_message()])
        executed(tmp_path / "events.db", f"UPDATE events SET {column} = {stored} WHERE seq = 1")
        spoilt, beside = await take(subscription)
        await publisher.publish([after := a_message()])
        assert [beside.message, *(each.message for each in await take(subscription))] == [before, after]
    found = {
        "key": spoilt.key,
        "value": spoilt.value,
        "headers": spoilt.headers[0][1],
        "published_at": spoilt.origin.published_at.date(),
    }
    assert found[column] == kept
    if column == "headers":
        assert (spoilt.headers[0][0], spoilt.message.type) == ("headers", "")


async def test_a_log_that_has_lost_its_id_gets_a_new_one_with_the_next_event(tmp_path: Path) -> None:
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        await publisher.publish([first := a_message()])
        await take(subscription)
        executed(tmp_path / "events.db", "DELETE FROM log")
        with pytest.raises(Unavailable, match="has no id"):
            await subscription.receive()
        await publisher.publish([second := a_message()])
        assert [each.message for each in await take(subscription)] == [first, second]
    executed(tmp_path / "events.db", "DELETE FROM log")
    async with publishing(tmp_path), subscribed(tmp_path) as subscription:
        assert [each.message for each in await take(subscription)] == [first, second]


@pytest.mark.parametrize(
    "spoil", ["DELETE FROM place", "UPDATE place SET seq = 'far'", "UPDATE place SET seq = X'ff'"]
)
async def test_an_offset_that_cannot_be_read_stops_no_publisher(tmp_path: Path, spoil: str) -> None:
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        await publisher.publish([message := a_message()])
        await take(subscription)
        executed(tmp_path / "events.group.db", spoil)
        await publisher.prune()
        if spoil.startswith("DELETE"):
            assert [each.message for each in await take(subscription)] == [message]
            await publisher.publish([another := a_message()])
            assert [each.message for each in await take(subscription)] == [another]
        else:
            with pytest.raises(Unavailable, match="stored as an offset"):
                await subscription.receive()


def executed(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


async def test_asking_for_the_publisher_does_not_keep_one_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with publishing(tmp_path):
        pass
    with (tmp_path / "events.db.lock").open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        monkeypatch.setattr("time.sleep", lambda _: fcntl.flock(asking, fcntl.LOCK_UN))
        async with publishing(tmp_path) as publisher:
            await publisher.publish([a_message()])


async def test_a_log_made_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        await publisher.publish([a_message() for _ in range(3)])
        await take(subscription)
    lose(tmp_path / "events.db")
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        await publisher.publish([message := a_message()])
        assert [each.message for each in await subscription.receive()] == [message]


async def test_a_log_made_anew_beneath_an_open_subscription_is_read_from_its_beginning(
    tmp_path: Path,
) -> None:
    async with subscribed(tmp_path) as subscription:
        async with publishing(tmp_path) as publisher:
            await publisher.publish([a_message() for _ in range(3)])
            await take(subscription)
            waiting = asyncio.create_task(take(subscription))
            await asyncio.sleep(0)
        lose(tmp_path / "events.db")
        async with publishing(tmp_path) as publisher:
            await publisher.publish([message := a_message()])
            assert [each.message for each in await waiting] == [message]
            await publisher.publish([sentinel := a_message()])
            assert [each.message for each in await take(subscription)] == [sentinel]


async def test_a_log_restored_from_before_a_groups_place_is_read_from_its_beginning(tmp_path: Path) -> None:
    async with publishing(tmp_path) as publisher:
        await publisher.publish([first := a_message()])
    older = (tmp_path / "events.db").read_bytes()
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        await publisher.publish([a_message() for _ in range(3)])
        assert len(await take(subscription)) == 4
    lose(tmp_path / "events.db")
    (tmp_path / "events.db").write_bytes(older)
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        await publisher.publish(
            later := [a_message() for _ in range(5)]
        )  # beyond the old place, before anybody has looked
        assert [each.message for each in await take(subscription)] == [first, *later]
        await publisher.publish([last := a_message()])
        assert [each.message for each in await take(subscription)] == [last]


@pytest.mark.parametrize("later", [2, 20])
async def test_a_log_older_than_a_group_that_comes_back_is_read_from_its_beginning(
    tmp_path: Path, later: int
) -> None:
    """Its publisher, which has not seen the group, writes up to before or beyond the old place."""
    offsets, away = tmp_path / "events.group.db", tmp_path / "away"
    async with publishing(tmp_path) as publisher:
        await publisher.publish([first := a_message()])
        copied(tmp_path / "events.db", tmp_path / "older")
        async with subscribed(tmp_path) as subscription:
            await publisher.publish([a_message() for _ in range(9)])
            await take(subscription)
    lose(tmp_path / "events.db")
    (tmp_path / "older").rename(tmp_path / "events.db")
    offsets.rename(away)
    async with publishing(tmp_path) as publisher:
        await asyncio.sleep(0.002)  # times are in milliseconds
        await publisher.publish(new := [a_message() for _ in range(later)])
        away.rename(offsets)
        await publisher.prune()
        async with subscribed(tmp_path) as subscription:
            assert [each.message for each in await subscription.receive()] == [first, *new]
            assert await subscription.lag() == 1 + later
            assert [each.message for each in await take(subscription)] == [first, *new]
            assert await subscription.lag() == 0
            await publisher.publish([last := a_message()])
            assert [each.message for each in await take(subscription)] == [last]


async def test_nothing_is_pruned_before_the_first_group(tmp_path: Path) -> None:
    async with publishing(tmp_path) as publisher:
        await publisher.publish([a_message() for _ in range(3)])
        await publisher.prune()
        async with subscribed(tmp_path) as subscription:
            assert len(await subscription.receive()) == 3


async def test_only_what_every_group_has_behind_it_is_pruned(tmp_path: Path) -> None:
    async with (
        publishing(tmp_path) as publisher,
        subscribed(tmp_path, "ahead") as ahead,
        subscribed(tmp_path, "behind") as behind,
    ):
        first, *rest = [a_message() for _ in range(4)]
        await publisher.publish([first])
        await take(behind)
        await publisher.publish(rest)
        await take(ahead)
        await publisher.prune()
        assert [each.message for each in await behind.receive()] == rest
        async with subscribed(tmp_path, "new") as new:
            assert [each.message for each in await new.receive()] == rest


async def test_a_group_that_has_acknowledged_nothing_keeps_everything(tmp_path: Path) -> None:
    async with (
        publishing(tmp_path) as publisher,
        subscribed(tmp_path, "ahead") as ahead,
        subscribed(tmp_path, "idle") as idle,
    ):
        await publisher.publish([a_message() for _ in range(3)])
        await take(ahead)
        await publisher.prune()
        assert len(await idle.receive()) == 3


def copy(source: Path, target: str) -> None:
    with (
        closing(sqlite3.connect(source)) as connection,
        closing(sqlite3.connect(source.with_name(target))) as to,
    ):
        connection.backup(to)


def unname(offsets: Path) -> None:
    """As a version before names left it."""
    with closing(sqlite3.connect(offsets)) as connection:
        connection.execute("PRAGMA application_id=0")


async def test_a_copy_beside_the_log_is_not_a_group_and_stops_no_pruning(tmp_path: Path) -> None:
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        copy(tmp_path / "events.group.db", "events.group.backup.db")
        copy(tmp_path / "events.db", "events.backup.db")
        copy(tmp_path / "events.group.db", "events.older.db")
        unname(tmp_path / "events.older.db")
        (tmp_path / "events.notes.db").write_text("no database at all " * 100)
        await publisher.publish([a_message() for _ in range(3)])
        await take(subscription)
        await publisher.prune()
        async with subscribed(tmp_path, "new") as new:
            await publisher.publish([a_message()])
            assert [sequence(each) for each in await new.receive()] == [4]


@pytest.mark.parametrize("break_it", [unname, lambda offsets: offsets.write_text("broken " * 1000)])
async def test_a_group_that_cannot_be_read_or_is_older_keeps_everything(
    tmp_path: Path, break_it: Callable[[Path], object]
) -> None:
    async with publishing(tmp_path) as publisher, subscribed(tmp_path, "ahead") as ahead:
        async with subscribed(tmp_path, "idle"):
            pass
        break_it(tmp_path / "events.idle.db")
        await publisher.publish([a_message() for _ in range(3)])
        await take(ahead)
        await publisher.prune()
        async with subscribed(tmp_path, "new") as new:
            assert len(await new.receive()) == 3


@pytest.mark.parametrize("sibling", ["", "-wal", "-shm"])
async def test_a_log_lost_beneath_its_services_makes_both_unready(tmp_path: Path, sibling: str) -> None:
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        await publisher.publish([a_message()])
        await take(subscription)
        for each in (publisher, subscription):
            each.check_alive()
        (tmp_path / f"events.db{sibling}").rename(tmp_path / "elsewhere")
        for each in (publisher, subscription):
            with pytest.raises(Unavailable, match="moved, removed or replaced"):
                each.check_alive()
        with pytest.raises(Unavailable, match="moved, removed or replaced"):
            await publisher.publish([a_message()])


async def test_a_sequence_never_starts_again_after_pruning(tmp_path: Path) -> None:
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        await publisher.publish([a_message() for _ in range(3)])
        await take(subscription)
        await publisher.prune()
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        await publisher.publish([a_message()])
        assert [sequence(each) for each in await take(subscription)] == [4]


async def test_publishing_prunes_now_and_then(tmp_path: Path) -> None:
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        await publisher.publish([a_message()])
        await take(subscription)
        await publisher.publish([a_message() for _ in range(PRUNE_INTERVAL)])
        async with subscribed(tmp_path, "late") as late:
            assert sequence((await late.receive())[0]) == 2


async def test_what_a_long_backlog_leaves_is_pruned_a_part_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinic.adapters.sqlite.transport.PRUNE_SIZE", 2)
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        await publisher.publish([a_message() for _ in range(5)])
        await take(subscription)
        for left in (3, 1, 0, 0):
            await publisher.prune()
            with closing(sqlite3.connect(tmp_path / "events.db")) as log:
                assert log.execute("SELECT count(*) FROM events").fetchone() == (left,)


async def test_a_pruning_looks_at_no_more_than_it_drops() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as log:
        log.executescript("".join(scripts("events")))
        log.execute(
            "INSERT INTO events (key, headers, value, published_at) WITH RECURSIVE many(n) AS "
            "(VALUES (1) UNION ALL SELECT n + 1 FROM many WHERE n < 100000) SELECT '', '', '', 0 FROM many"
        )
        steps = [0]
        log.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + 1), 100)
        log.execute(PRUNE, (99_999, 10))
        assert steps[0] < 20  # hundreds of SQLite's own; to look at each row takes thousands of hundreds
        assert log.execute("SELECT count(*) FROM events").fetchone() == (99_990,)


async def test_a_quiet_log_is_looked_at_less_and_less_often(tmp_path: Path) -> None:
    looks: list[float] = []
    ninety_nine = asyncio.Event()

    async def pause(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) > 200:
            ninety_nine.set()
        await asyncio.sleep(0)

    place = SqliteFile(tmp_path / "events.group.db", *scripts("group"))
    async with publishing(tmp_path), opened(place):
        subscription = SqliteSubscription(tmp_path / "events.db", place, now, pause)
        waiting = asyncio.create_task(subscription.receive())
        await ninety_nine.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
        await subscription.close()
    assert looks == sorted(looks)
    assert (looks[0], looks[-1]) == (0.001, 0.02)


async def test_what_is_published_to_a_copy_restored_beneath_the_publisher_arrives(tmp_path: Path) -> None:
    copy = tmp_path / "older"
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        await publisher.publish([a_message() for _ in range(3)])
        copied(tmp_path / "events.db", copy)
        await publisher.publish([a_message() for _ in range(20)])
        acknowledged = 0
        while acknowledged < 23:
            acknowledged += len(await take(subscription))
        copied(copy, tmp_path / "events.db")
        again = [a_message() for _ in range(10)]
        await publisher.publish(again)
        arrived: list[str] = []
        while len(arrived) < 13:
            arrived += [delivery.message.id for delivery in await take(subscription)]
    assert {message.id for message in again} <= set(arrived)


async def test_a_copy_restored_before_a_restarted_publisher_has_published_gets_a_new_id(
    tmp_path: Path,
) -> None:
    copy = tmp_path / "older"
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        await publisher.publish([first := a_message()])
        copied(tmp_path / "events.db", copy)
        await publisher.publish([a_message() for _ in range(9)])
        old = (await take(subscription))[0].origin.position
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        copied(copy, tmp_path / "events.db")
        await publisher.publish(new := [a_message() for _ in range(20)])
        batch = await take(subscription)
    assert [each.message for each in batch] == [first, *new]
    assert batch[0].origin.position.partition("/")[0] != old.partition("/")[0]


async def test_the_lag_after_an_older_copy_was_restored_is_never_negative(tmp_path: Path) -> None:
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        await publisher.publish([a_message()])
        copied(tmp_path / "events.db", tmp_path / "older")
        await publisher.publish([a_message() for _ in range(9)])
        await take(subscription)
        copied(tmp_path / "older", tmp_path / "events.db")
        assert await subscription.lag() == 1
        await take(subscription)
        assert await subscription.lag() == 0


async def test_the_lag_is_what_a_group_has_not_acknowledged(tmp_path: Path) -> None:
    async with publishing(tmp_path) as publisher, subscribed(tmp_path) as subscription:
        assert await subscription.lag() is None  # nothing was read yet
        await publisher.publish([a_message() for _ in range(5)])
        batch = await subscription.receive()
        assert await subscription.lag() == 5
        await subscription.acknowledge(batch[:2])
        assert await subscription.lag() == 3
        await subscription.acknowledge(batch)
        await publisher.prune()
        assert await subscription.lag() == 0
        await publisher.publish([a_message()])
        assert await subscription.lag() == 1


async def test_the_lag_in_a_log_made_anew_is_all_of_it(tmp_path: Path) -> None:
    async with subscribed(tmp_path) as subscription:
        async with publishing(tmp_path) as publisher:
            await publisher.publish([a_message() for _ in range(5)])
            await take(subscription)
        lose(tmp_path / "events.db")
        async with publishing(tmp_path) as publisher:
            await publisher.publish([a_message() for _ in range(2)])
            await subscription.receive()
            assert await subscription.lag() == 2
