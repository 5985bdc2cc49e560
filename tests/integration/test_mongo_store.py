"""The MongoDB stores keep every promise, on a standalone server and on a replica set."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pymongo
import pytest
from builders import a_charge, an_appointment, now, opened
from contracts.stores import LONG, AppointmentsContract, ChargesContract, DeadLettersContract, finished, hand_over

from clinic.adapters.mongo_appointments import MongoAppointments
from clinic.adapters.mongo_charges import MongoCharges
from clinic.adapters.mongo_database import MongoDatabase
from clinic.adapters.mongo_dead_letters import MongoDeadLetters
from clinic.domain.errors import Misconfigured, Unavailable

NOBODY = "mongodb://127.0.0.1:1/?directConnection=true"


class OnMongo:
    """A database of this test's own on a real server; `where` names it."""

    url: ClassVar[str] = ""

    @pytest.fixture(autouse=True, params=["mongo_standalone", "mongo_replica_set"])
    def server(self, request: pytest.FixtureRequest) -> None:
        type(self).url = request.getfixturevalue(request.param)

    @pytest.fixture
    def where(self) -> Path:
        return Path(f"test-{uuid4().hex}")

    def database(self, where: Path, url: str | None = None) -> MongoDatabase:
        return MongoDatabase(url or self.url, where.name, timeout=0.3 if url else 5)


class TestMongoAppointments(OnMongo, AppointmentsContract):
    @asynccontextmanager
    async def opened(self, where: Path, lease: float) -> AsyncIterator[MongoAppointments]:
        store = MongoAppointments(self.database(where), now, lease)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def unanswering(self, where: Path) -> AsyncIterator[MongoAppointments]:
        yield MongoAppointments(self.database(where, NOBODY), now, LONG)


class TestMongoCharges(OnMongo, ChargesContract):
    @asynccontextmanager
    async def opened(self, where: Path) -> AsyncIterator[MongoCharges]:
        store = MongoCharges(self.database(where))
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def unanswering(self, where: Path) -> AsyncIterator[MongoCharges]:
        yield MongoCharges(self.database(where, NOBODY))


class TestMongoDeadLetters(OnMongo, DeadLettersContract):
    @asynccontextmanager
    async def opened(self, where: Path) -> AsyncIterator[MongoDeadLetters]:
        database = self.database(where)
        await database.open()
        try:
            yield MongoDeadLetters(database)
        finally:
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
        point = {"configureFailPoint": "failCommand", "data": {"failCommands": [command], "writeConcernError": UNSAFE, "appName": "clinic"}}
        client.admin.command({**point, "mode": "alwaysOn"})
        try:
            yield
        finally:
            client.admin.command({**point, "mode": "off"})


async def test_a_write_that_is_not_safe_has_an_unknown_outcome_and_its_facts_are_found_later(mongo_standalone: str) -> None:
    store = MongoAppointments(MongoDatabase(mongo_standalone, f"test-{uuid4().hex}", timeout=5), now, lease=0.2)
    async with opened(store):
        started = an_appointment()
        with writes_that_are_not_safe(mongo_standalone, "insert"), pytest.raises(Unavailable, match="safe"):
            await store.add(started)
        state, message = finished(await store.get(started.id))
        with writes_that_are_not_safe(mongo_standalone, "update"), pytest.raises(Unavailable, match="safe"):
            await store.save(state, message)
        assert await hand_over(store, 1) == [message]


async def test_charges_that_are_not_safe_are_not_said_to_be_kept(mongo_standalone: str) -> None:
    charges = MongoCharges(MongoDatabase(mongo_standalone, f"test-{uuid4().hex}", timeout=5))
    async with opened(charges):
        charge = a_charge()
        with writes_that_are_not_safe(mongo_standalone, "insert"), pytest.raises(Unavailable):
            await charges.add([charge])
        assert (await charges.add([charge])).standing == [charge]


@pytest.mark.parametrize("url", ["mongodb://user:hunter2", "mongodb://127.0.0.1/?tlsCAFile=hunter2&tls=true", "http://hunter2"])
async def test_an_address_that_is_none_is_named_by_its_setting_and_not_repeated(url: str) -> None:
    with pytest.raises(Misconfigured, match="CLINIC_MONGO_URL") as refused:
        await MongoDatabase(url, "test", timeout=0.3).open()
    assert "hunter2" not in str(refused.value)


async def test_what_was_written_is_read_again_whatever_the_address_asks_for(mongo_replica_set: str) -> None:
    database = MongoDatabase(f"{mongo_replica_set}&readPreference=secondary", f"test-{uuid4().hex}", timeout=2)
    async with opened(MongoAppointments(database, now, LONG)) as store:
        started = an_appointment()
        await store.add(started)
        assert await store.get(started.id) == started
