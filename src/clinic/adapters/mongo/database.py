"""What the MongoDB stores share: a context's database, one kind of failure, bulks with exact outcomes.

No transactions: the same on a standalone server, a replica set and a sharded cluster. Every write is majority
and journaled.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, TypeVar

import pymongo
from bson.decimal128 import Decimal128
from bson.errors import BSONError
from pymongo import AsyncMongoClient, IndexModel, InsertOne, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError

from clinic.adapters.group_commit import GroupCommit
from clinic.domain.errors import Misconfigured, Unavailable
from clinic.domain.messaging.ports import Resource
from clinic.domain.money import Money

Document = dict[str, Any]
Collection = AsyncCollection[Document]

T = TypeVar("T")

DUPLICATE: Final = 11000
NOT_ALLOWED: Final = 13
MAX_BUILD: Final = 86_400.0
"""Seconds that building indexes may take."""


class CollectionSchema:
    """A collection and the indexes that its queries need."""

    def __init__(self, name: str, *indexes: IndexModel) -> None:
        self.name = name
        self.indexes = indexes


class MongoDatabase(Resource):
    """A context's database; its client lives as long as the service does.

    `timeout` bounds each wait for a server that hangs, in seconds. `schemas` are what `open` makes.
    """

    def __init__(self, url: str, name: str, timeout: float, *schemas: CollectionSchema) -> None:
        self._url = url
        self._name = name
        self.timeout = timeout
        self._schemas = schemas
        self._client: AsyncMongoClient[Document] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._building: asyncio.Task[None] | None = None
        self._try_to_write = GroupCommit(self._write_again, timeout=timeout)

    async def open(self) -> None:
        """Raises `Misconfigured` where the address or a collection's shard key cannot be used.

        Indexes of many documents take longer than a start may: they are then built beside the service, and
        `check` raises `Unavailable` until they are there.
        """
        self._connect()
        for schema in self._schemas:
            await self._check_sharding(schema.name)
        building = self._build_indexes()
        await asyncio.wait([building], timeout=self.timeout)
        if building.done():
            building.result()

    def _build_indexes(self) -> asyncio.Task[None]:
        async def build() -> None:
            # In place of the socket's time limit, which the client applies to every command without this.
            with translate_errors(), pymongo.timeout(MAX_BUILD):
                for schema in filter(attrgetter("indexes"), self._schemas):
                    await self.collection(schema.name).create_indexes([*schema.indexes])

        self._building = asyncio.create_task(build())
        self._building.add_done_callback(_heard)
        return self._building

    def _connect(self) -> None:
        if self._client is not None:
            return
        milliseconds = int(self.timeout * 1000)
        try:
            self._client = AsyncMongoClient(
                self._url,
                appname="clinic",
                tz_aware=True,
                uuidRepresentation="standard",
                # What nobody of ours has stored is read as it is, and judged alone.
                unicode_decode_error_handler="replace",
                datetime_conversion="DATETIME_AUTO",
                w="majority",
                journal=True,
                readConcernLevel="majority",
                readPreference="primary",  # what was just written is read again
                retryReads=False,  # a retry would double the time that a client waits for its 503
                serverSelectionTimeoutMS=milliseconds,
                connectTimeoutMS=milliseconds,
                socketTimeoutMS=milliseconds,
                wTimeoutMS=milliseconds,
            )
        except (PyMongoError, ValueError, OSError) as error:
            # Its words are not repeated: they may hold a password.
            raise Misconfigured(
                f"CLINIC_MONGO_URL cannot be used ({type(error).__name__}): write it like mongodb://user:password@host:27017/?option=value"
            ) from None

    async def attach(self) -> None:
        """Open it for a command beside the services. Raises `Unavailable`."""
        self._connect()
        with translate_errors():
            await self._opened[self._name].command("ping")

    async def close(self) -> None:
        if self._building is not None:
            self._building.cancel()
            await asyncio.wait([self._building])
        if self._running:
            await asyncio.wait(self._running)
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def check(self) -> None:
        """Return when the primary takes writes and has every index. Raises `Unavailable`."""
        await self._try_to_write(())
        if self._building and self._building.done() and self._building.exception():
            self._build_indexes()  # a new primary may have to begin again
        if self._building and not self._building.done():
            raise Unavailable("MongoDB is building indexes: until they are there, some requests fail")

    async def _write_again(self, checks: Sequence[tuple[()]]) -> Sequence[tuple[()]]:
        # A server that is locked (`fsyncLock`) answers all but this: one such write waits there at a time.
        with translate_errors(), pymongo.timeout(self.timeout):
            mark = {"$currentDate": {"at": True}}
            await self.collection("health").update_one({"_id": "written"}, mark, upsert=True)
        return checks

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that nobody waits for, but `close`."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def with_timeout(self, answer: Coroutine[Any, Any, T]) -> T:
        """The answer. Raises `Unavailable` where it takes longer; the work continues, its outcome unknown."""
        asked = asyncio.create_task(answer)
        asked.add_done_callback(_heard)
        await asyncio.wait([asked], timeout=self.timeout)
        if not asked.done():
            raise Unavailable(f"MongoDB does not answer within {self.timeout:g} s")
        return asked.result()

    async def fetch(self, found: AsyncCursor[Document], read: Callable[[Document], T]) -> list[T]:
        """All that a query finds, as it is read. Raises `Unavailable`."""
        return [read(document) for document in await self.with_timeout(fetch_all(found))]

    def collection(self, name: str) -> Collection:
        return self._opened[self._name][name]

    async def _check_sharding(self, collection: str) -> None:
        """Raises `Misconfigured` unless `_id` is the shard key: only then is it unique across shards."""
        found = f"{self._name}.{collection}"
        with translate_errors():
            if (await self._opened.admin.command("hello")).get("msg") != "isdbgrid":
                return
            try:
                sharded = await self._opened.config.collections.find_one({"_id": found})
            except OperationFailure as error:
                if error.code != NOT_ALLOWED:
                    raise
                raise Misconfigured(
                    f"the shard key of {found} cannot be checked: allow this user to read config.collections"
                ) from error
        if sharded and dict(sharded["key"]) != {"_id": "hashed"}:
            raise Misconfigured(
                f"{found} is sharded by {dict(sharded['key'])}: shard it anew, with "
                f'sh.shardCollection("{found}", {{_id: "hashed"}})'
            )

    @property
    def _opened(self) -> AsyncMongoClient[Document]:
        if self._client is None:
            raise Unavailable("the connection to MongoDB is closed")
        return self._client


def _heard(asked: "asyncio.Task[Any]") -> None:
    # The caller may be gone by now: then nobody else takes note of a failure.
    if not asked.cancelled():
        asked.exception()


@contextmanager
def translate_errors() -> Iterator[None]:
    """Every failure of the driver is one thing: no answer. For a write the outcome is unknown."""
    try:
        yield
    except (BSONError, PyMongoError) as error:
        said = str(error).partition(", full error")[0].partition(", Topology")[0]
        raise Unavailable(f"MongoDB does not answer: {said.rpartition(' :: caused by :: ')[2]}") from error


async def bulk(
    documents: Collection, requests: Sequence[InsertOne[Document] | UpdateOne]
) -> Mapping[str, Any]:
    """The details of an unordered bulk, whose operations succeed or fail each on its own."""
    try:
        return (await documents.bulk_write(requests, ordered=False)).bulk_api_result
    except BulkWriteError as error:
        return error.details or {}


def is_whole(details: Mapping[str, Any], requests: Sequence[object]) -> bool:
    """Whether each write is safe or has its error: the driver's retry may leave some out, unsaid."""
    counted = sum(details[name] for name in ("nInserted", "nMatched", "nUpserted"))
    return not details["writeConcernErrors"] and counted + len(details["writeErrors"]) == len(requests)


async def insert_new(documents: Collection, new: Sequence[Document]) -> set[int]:
    """Insert each whose `_id` is new; return the indexes of the others. Raises `Unavailable`."""
    with translate_errors():
        details = await bulk(documents, [InsertOne(document) for document in new])
    errors = details["writeErrors"]
    if not is_whole(details, new) or any(error["code"] != DUPLICATE for error in errors):
        raise Unavailable(f"MongoDB does not say whether all {documents.name} are kept")
    return {error["index"] for error in errors}


async def fetch_all(found: AsyncCursor[Document]) -> list[Document]:
    """All that a query finds. Raises `Unavailable`."""
    with translate_errors():
        return await found.to_list()


def given(**conditions: object) -> Document:
    """Those that are not None."""
    return {name: value for name, value in conditions.items() if value is not None}


@lru_cache(maxsize=4096)
def decimal(amount: Money) -> Decimal128:
    """An amount as it is kept: exact. A clinic's amounts are few, and making one takes a while."""
    return Decimal128(str(amount))


def money(amount: Decimal128) -> Money:
    """A kept amount."""
    return _money(amount.bid)


@lru_cache(maxsize=4096)
def _money(bid: bytes) -> Money:
    return Money(Decimal128.from_bid(bid).to_decimal())
