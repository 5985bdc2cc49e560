"""The MongoDB stores keep every promise, on a standalone server and on a replica set."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import pytest
from builders import now
from contracts.stores import LONG, AppointmentsContract, ChargesContract, DeadLettersContract

from clinic.adapters.mongo_appointments import MongoAppointments
from clinic.adapters.mongo_charges import MongoCharges
from clinic.adapters.mongo_database import MongoDatabase
from clinic.adapters.mongo_dead_letters import MongoDeadLetters

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
