"""The MongoDB stores keep every promise, on a standalone server and on a replica set."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from random import uniform
from time import monotonic
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pymongo
import pytest
from bson.datetime_ms import DatetimeMS
from msgspec.structs import asdict
from pymongo.asynchronous.pool import Pool
from pymongo.errors import AutoReconnect
from support.mongo import MongoStore, a_mongo_store, mongo_charges, mongo_dead_letters
from support.processes import eventually

from clinic.adapters.memory.transport import MemoryLog, MemoryPublisher
from clinic.adapters.mongo.appointments import APPOINTMENTS
from clinic.adapters.mongo.charges import CHARGES, MongoCharges
from clinic.adapters.mongo.database import MongoDatabase
from clinic.adapters.mongo.dead_letters import MongoDeadLetters
from clinic.domain.errors import Conflict, Misconfigured, Unavailable
from clinic.domain.messaging.dead_letters import DeadLetterFilter, HistoryEntry
from clinic.domain.messaging.relay import Relay
from clinic.testing.appointments import AppointmentsContract
from clinic.testing.builders import (
    ONE_O_CLOCK,
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
from clinic.testing.outbox import LONG, finished, hand_over, published, saved
from clinic.testing.subject import FEW

NOBODY = "mongodb://127.0.0.1:1/?directConnection=true"


class OnMongo:
    """A database of this test's own on a real server; `where` names it."""

    url: ClassVar[str] = ""
    histories = FEW

    @pytest.fixture(autouse=True, params=["mongo_standalone", "mongo_replica_set"])
    def server(self, request: pytest.FixtureRequest) -> None:
        type(self).url = request.getfixturevalue(request.param)

    @pytest.fixture
    def where(self) -> Path:
        return Path(f"test-{uuid4().hex}")

    def database(self, where: Path, url: str | None = None) -> MongoDatabase:
        return MongoDatabase(url or self.url, where.name, timeout=0.3 if url else 5)


async def test_what_the_driver_left_out_of_a_group_is_not_taken_for_saved(
    mongo_replica_set: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its first connection cannot be had, its retry runs the inserts of a bulk and not the updates."""
    async with a_mongo_store(mongo_replica_set, f"test-{uuid4().hex}", LONG) as store:
        known = await store.appointments.add(an_appointment(id=uuid4()))
        connect, refused = Pool._get_conn, iter([True])  # noqa: SLF001 — of the driver

        async def refuses_once(self: Pool, *given: Any, **named: Any) -> Any:
            if next(refused, False):
                raise AutoReconnect("there is no connection")
            return await connect(self, *given, **named)

        monkeypatch.setattr(Pool, "_get_conn", refuses_once)
        adding = asyncio.create_task(store.appointments.add(an_appointment(id=uuid4())))
        ended, event = finished(known)
        saving = asyncio.create_task(store.appointments.save(ended, event))
        with suppress(Unavailable):
            await adding
        try:
            saved_ = await saving
        except Unavailable:  # unknown: whoever asks again finds it open, and finishes it
            saved_ = await store.appointments.save(ended, event)
        assert await store.appointments.get(known.id) == saved_


async def test_a_dropped_index_is_told_without_the_servers_whole_answer(
    mongo_standalone: str,
) -> None:
    name = f"test-{uuid4().hex}"
    async with a_mongo_store(mongo_standalone, name, LONG) as store:
        with pymongo.MongoClient[dict[str, Any]](mongo_standalone) as client:
            client[name]["appointments"].drop_indexes()
        with pytest.raises(Unavailable) as told:
            await store.outbox.oldest()
        whole = "MongoDB does not answer: hint provided does not correspond to an existing index"
        assert str(told.value) == whole
        await store.appointments.add(an_appointment(id=uuid4()))


async def test_a_list_shows_a_state_whose_write_a_crash_has_cut_off(mongo_standalone: str) -> None:
    name = f"test-{uuid4().hex}"
    letters = [a_letter(position=f"log/{number}") for number in range(3)]
    async with mongo_dead_letters(mongo_standalone, name) as kept:
        await kept.add(letters)
        await kept.record(letters[2], a_history_entry(event="failed again"))
        with pymongo.MongoClient[dict[str, Any]](mongo_standalone) as client:
            entry = asdict(a_history_entry(event="discarded"))
            for number, position in ((0, "log/0"), (1, "log/2")):
                client[name]["dead_letter_history"].insert_one(
                    {"_id": f"{position}/{number}", "position": position, "number": number, **entry}
                )
        (group,) = await kept.groups()
        assert (group.waiting, group.discarded) == (1, 2)
        states = [letter.state for letter in await kept.page(DeadLetterFilter(), 10)]
        assert states == ["discarded", "waiting", "discarded"]


@pytest.mark.parametrize(
    "spoil",
    [
        {"outbox.0.type": 7},
        {"outbox.0.data": "a text"},
        {"outbox.0.key": b"bytes"},
        {"outbox.0.time": DatetimeMS(2**60)},
        {"outbox.0": {"id": "alone"}},
        {"outbox.0": {"id": 7, "saved_at": DatetimeMS(-(2**60))}},
        {"outbox.0.subject": "another"},
        {"outbox.0.id": "a.b"},
    ],
)
async def test_an_event_that_cannot_be_read_is_named_and_the_rest_goes_on(
    mongo_standalone: str, spoil: dict[str, Any]
) -> None:
    name = f"test-{uuid4().hex}"
    telemetry = RecordedTelemetry()
    log = MemoryLog()
    async with a_mongo_store(mongo_standalone, name, LONG) as store:
        messages = [await saved(store) for _ in range(3)]
    with pymongo.MongoClient[dict[str, Any]](mongo_standalone, uuidRepresentation="standard") as client:
        appointments, spoilt = client[name]["appointments"], {"_id": UUID(messages[1].subject)}
        appointments.update_one(spoilt, {"$set": spoil})
        appointments.update_many({}, {"$set": {"lease": {"since": ONE_O_CLOCK, "seconds": 1.0}}})
        async with a_mongo_store(mongo_standalone, name, 0.5) as store:
            relay = Relay(store, MemoryPublisher(log, now), asyncio.sleep, telemetry, monotonic, uniform)
            async with running(relay.run()), asyncio.timeout(20):
                await telemetry.seen("published", 2)
                await telemetry.seen("cannot be published")
                later = await saved(store)
                await telemetry.seen("published", 3)
                assert relay.problem
        assert (appointments.find_one(spoilt, {"outbox.id": True}) or {})["outbox"]
    assert {message.id for _, message in log.entries} == {messages[0].id, messages[2].id, later.id}


class TestMongoAppointments(OnMongo, AppointmentsContract):
    together = True

    @asynccontextmanager
    async def opened(self, where: Path, lease: float) -> AsyncIterator[MongoStore]:
        async with a_mongo_store(self.url, where.name, lease) as store:
            yield store

    @asynccontextmanager
    async def unanswering(self, where: Path) -> AsyncIterator[MongoStore]:
        yield MongoStore(self.database(where, NOBODY), LONG)

    async def test_an_event_behind_one_in_hand_comes_as_soon_as_that_one_is_confirmed(
        self, store: MongoStore
    ) -> None:
        await store.add(each := an_appointment())
        first, behind = [a_message(subject=str(each.id)) for _ in range(2)]
        await store.save(await store.save(each, first), behind)
        assert await self.soon(hand_over(store, 1)) == [first]
        waiting = asyncio.create_task(hand_over(store, 2))
        sentinel = await saved(store)
        await self.looked_in_vain(store)
        await store.confirm(published(first))
        assert await self.soon(waiting) == [sentinel, behind]

    async def test_a_crash_behind_the_reservation_is_completed_by_the_repetition(self, where: Path) -> None:
        async with self.opened(where, LONG) as store:
            first = await store.add(an_appointment(), once=b"key")
            database = self.database(where)
            async with opened(database):  # as if the process had ended before it added what it reserved
                await database.collection("appointments").delete_one({"_id": first.id})
            assert await store.add(an_appointment(), once=b"key") == first
            assert await store.get(first.id) == first

    async def test_what_was_leased_before_the_clock_was_set_back_is_free(self, where: Path) -> None:
        async with self.opened(where, self.short_lease) as store:
            message = await saved(store)
            await self.soon(hand_over(store, 1))
            database = self.database(where)
            await database.open()
            ahead = {"$set": {"lease.since": now() + timedelta(hours=1)}}
            await database.collection("appointments").update_one({"_id": UUID(message.subject)}, ahead)
            await database.close()
            assert await self.soon(hand_over(store, 1)) == [message]

    async def test_an_event_that_was_saved_before_there_were_extensions_is_handed_over(
        self, where: Path
    ) -> None:
        async with self.opened(where, self.short_lease) as store:
            message = await saved(store)
            database = self.database(where)
            async with opened(database):
                unset = {"$unset": {"outbox.0.extensions": True}}
                await database.collection("appointments").update_one({"_id": UUID(message.subject)}, unset)
        async with self.opened(where, self.short_lease) as store:
            assert await self.soon(hand_over(store, 1)) == [message]

    async def test_what_another_process_put_there_is_found_however_long_a_lease_is(
        self, where: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("clinic.adapters.mongo.outbox.MAX_SWEEP", 0.05)
        async with self.opened(where, LONG) as store, self.opened(where, LONG) as command:
            waiting = asyncio.create_task(hand_over(store, 1))
            await self.looked_in_vain(store)
            state, message = finished(await command.save(await command.add(an_appointment())))
            await command.save(state, message)
            assert await self.soon(waiting) == [message]

    async def looked_in_vain(self, store: MongoStore) -> None:
        """By the time that so many questions are answered, the waiting claim has looked into the database."""
        for _ in range(10):
            await store.oldest()


class TestMongoCharges(OnMongo, ChargesContract):
    @asynccontextmanager
    async def opened(self, where: Path) -> AsyncIterator[MongoCharges]:
        async with mongo_charges(self.url, where.name) as store:
            yield store

    @asynccontextmanager
    async def unanswering(self, where: Path) -> AsyncIterator[MongoCharges]:
        yield MongoCharges(self.database(where, NOBODY))


class TestMongoDeadLetters(OnMongo, DeadLettersContract):
    @asynccontextmanager
    async def opened(self, where: Path) -> AsyncIterator[MongoDeadLetters]:
        async with mongo_dead_letters(self.url, where.name) as letters:
            yield letters

    async def test_a_crash_between_entry_and_state_is_completed_by_the_next_read(self, where: Path) -> None:
        async with self.opened(where) as letters:
            await letters.add([letter := a_letter()])
            await letters.record(letter, failed := a_history_entry(event="failed again"))
            waiting = letter.with_entry(failed)
            await self.add_entry(where, 1, discarded := a_history_entry(event="discarded"))
            with pytest.raises(Conflict, match="log/1"):
                await letters.record(waiting, a_history_entry())
            assert await letters.get("log/1") == waiting.with_entry(discarded)
            assert list(await letters.page(DeadLetterFilter("discarded"), 10)) == [
                waiting.with_entry(discarded).listed()
            ]
            await letters.record(waiting.with_entry(discarded), again := a_history_entry())
            assert (await letters.get("log/1")).history == (failed, discarded, again)

    async def add_entry(self, where: Path, number: int, entry: HistoryEntry) -> None:
        """As a process does that ends right after it."""
        database = self.database(where)
        async with opened(database):
            key = {"_id": f"log/1/{number}", "position": "log/1", "number": number}
            await database.collection("dead_letter_history").insert_one(key | asdict(entry))

    async def test_lists_and_groups_read_no_history(self, where: Path) -> None:
        async with self.opened(where) as letters:
            await letters.add([letter := a_letter()])
            await letters.record(letter, a_history_entry())
            with pymongo.MongoClient[dict[str, Any]](self.url) as client:
                client[where.name].drop_collection("dead_letter_history")
            assert [each.entries for each in await letters.page(DeadLetterFilter("replayed"), 10)] == [1]
            assert [each.replayed for each in await letters.groups()] == [1]

    async def test_a_command_that_comes_before_the_service_has_made_its_indexes_finds_all(
        self, where: Path
    ) -> None:
        database = self.database(where)
        await database.attach()
        letters = MongoDeadLetters(database)
        await letters.add([letter := a_letter()])
        assert list(await letters.page(DeadLetterFilter("waiting"), 10)) == [letter.listed()]
        assert [each.waiting for each in await letters.groups()] == [1]
        await database.close()

    @asynccontextmanager
    async def unanswering(self, where: Path) -> AsyncIterator[MongoDeadLetters]:
        yield MongoDeadLetters(self.database(where, NOBODY))


UNSAFE = {"code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out"}


@contextmanager
def writes_that_are_not_safe(url: str, command: str) -> Iterator[None]:
    """Inside, the server does what it is told, and answers that it cannot say whether that is safe."""
    client: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient(url) as client:
        point = {
            "configureFailPoint": "failCommand",
            "data": {"failCommands": [command], "writeConcernError": UNSAFE, "appName": "clinic"},
        }
        client.admin.command({**point, "mode": "alwaysOn"})
        try:
            yield
        finally:
            client.admin.command({**point, "mode": "off"})


async def test_an_unsafe_write_has_an_unknown_outcome_and_its_events_are_found_later(
    mongo_standalone: str,
) -> None:
    async with a_mongo_store(mongo_standalone, f"test-{uuid4().hex}", lease=0.2) as store:
        started = an_appointment()
        with writes_that_are_not_safe(mongo_standalone, "insert"), pytest.raises(Unavailable, match="safe"):
            await store.add(started)
        state, message = finished(await store.get(started.id))
        with writes_that_are_not_safe(mongo_standalone, "update"), pytest.raises(Unavailable, match="safe"):
            await store.save(state, message)
        assert await hand_over(store, 1) == [message]


async def test_charges_that_are_not_safe_are_not_said_to_be_kept(mongo_standalone: str) -> None:
    async with mongo_charges(mongo_standalone, f"test-{uuid4().hex}") as charges:
        charge = a_charge()
        with writes_that_are_not_safe(mongo_standalone, "insert"), pytest.raises(Unavailable):
            await charges.add([charge])
        assert (await charges.add([charge])).existing == [charge]


@contextmanager
def a_fail_point(url: str, name: str, **data: Any) -> Iterator[None]:
    """Inside, the server has it on."""
    client: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient(url) as client:
        client.admin.command({"configureFailPoint": name, "mode": "alwaysOn", "data": data})
        try:
            yield
        finally:
            client.admin.command({"configureFailPoint": name, "mode": "off"})


SLOW = {"failCommands": ["createIndexes"], "blockConnection": True, "blockTimeMS": 500, "appName": "clinic"}


@pytest.mark.parametrize("server", ["mongo_standalone", "mongo_replica_set"])
@pytest.mark.parametrize(
    ("name", "data"),
    [("hangAfterStartingIndexBuild", {}), ("failCommand", {**SLOW, "errorCode": 11602})],
    ids=["the build takes long", "the build takes long and fails"],
)
async def test_a_start_does_not_wait_for_indexes_and_is_unready_until_they_are_there(
    server: str, name: str, data: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(server)
    database = MongoDatabase(url, f"test-{uuid4().hex}", 0.3, APPOINTMENTS)
    await database.attach()
    await database.collection("appointments").insert_one({"_id": uuid4()})
    with a_fail_point(url, name, **data):
        await database.open()
        with pytest.raises(Unavailable, match="building indexes"):
            await database.check()
        store = MongoStore(database, LONG)
        await store.add(started := an_appointment())
        assert await store.get(started.id) == started
    await eventually(lambda: is_ready(database))
    indexes = await database.collection("appointments").index_information()
    assert {"end_1__id_1", "outbox.saved_at_1"} <= set(indexes)
    await database.close()


@pytest.mark.parametrize("server", ["mongo_standalone", "mongo_replica_set"])
async def test_a_server_that_takes_no_writes_is_not_ready_and_holds_one_at_a_time(
    server: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(server)
    database = MongoDatabase(url, f"test-{uuid4().hex}", 0.5, CHARGES)
    client: pymongo.MongoClient[dict[str, Any]]
    async with opened(database):
        await database.check()
        with pymongo.MongoClient(url) as client:
            client.admin.command({"fsync": 1, "lock": True})
            try:
                for _ in range(2):
                    with pytest.raises(Unavailable, match="does not answer"):
                        await database.check()
                checks = [asyncio.create_task(database.check()) for _ in range(10)]
                await asyncio.wait(checks, timeout=0.3)
                waiting = client.admin.command("currentOp", ns=f"{database.collection('health').full_name}")
                assert len(waiting["inprog"]) <= 2  # the one before may not have ended yet
                for outcome in await asyncio.gather(*checks, return_exceptions=True):
                    assert isinstance(outcome, Unavailable)
            finally:
                client.admin.command("fsyncUnlock")
        await eventually(lambda: is_ready(database))
        assert await database.collection("health").count_documents({}) == 1


async def is_ready(database: MongoDatabase) -> bool:
    with suppress(Unavailable):
        await database.check()
        return True
    return False


@pytest.mark.parametrize(
    "url", ["mongodb://user:hunter2", "mongodb://127.0.0.1/?tlsCAFile=hunter2&tls=true", "http://hunter2"]
)
async def test_an_address_that_is_none_is_named_by_its_setting_and_not_repeated(url: str) -> None:
    with pytest.raises(Misconfigured, match="CLINIC_MONGO_URL") as refused:
        await MongoDatabase(url, "test", timeout=0.3).open()
    assert "hunter2" not in str(refused.value)


async def test_what_was_written_is_read_again_whatever_the_address_asks_for(mongo_replica_set: str) -> None:
    url = f"{mongo_replica_set}&readPreference=secondary"
    async with a_mongo_store(url, f"test-{uuid4().hex}", LONG, timeout=2) as store:
        started = an_appointment()
        await store.add(started)
        assert await store.get(started.id) == started
