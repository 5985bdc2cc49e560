"""The outbox in MongoDB: the unpublished events of an appointment, in its document.

A save hands its events to the relay of its own process; a sweep finds the rest, by the server's clock.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from uuid import UUID, uuid4

import msgspec
from msgspec.structs import asdict
from pymongo import ASCENDING, UpdateOne

from clinic.adapters.mongo import database as mongo
from clinic.adapters.stored import event_of
from clinic.domain.errors import Unavailable
from clinic.domain.messaging.messages import ClaimedMessage, Message, PublicationStatus, PublishResult
from clinic.domain.messaging.ports import Monotonic, Outbox, Waiting

MAX_SWEEP: Final = 15.0
"""Seconds between two looks for what another process has left, or has put there."""
MAX_READY: Final = 10_000
"""Events that a process keeps in hand for its relay; the sweep finds what is beyond."""
UNPUBLISHED: Final = {"outbox.0.id": {"$exists": True}}
BY_SAVE: Final = [("outbox.saved_at", ASCENDING)]
"""An index by each event's save: the oldest is its first key, however long the backlog is."""
BY_PLACE: Final = [("saved_at", ASCENDING), ("_id", ASCENDING)]
"""By the last save: an index by what is in an array gives no order from a place in it."""
ADDED: Final = {"added_at": {"$exists": True}}
"""Saving what was never added makes a document that is no appointment, until it is removed again."""


class MongoOutbox(Outbox):
    """The unpublished events in the collection `appointments`."""

    def __init__(self, database: mongo.MongoDatabase, lease: float, monotonic: Monotonic) -> None:
        self._database, self._lease = database, lease
        self._monotonic = monotonic
        self._ready: deque[ClaimedMessage] = deque()
        self._woken = asyncio.Event()
        self._sweeping: asyncio.Task[None] | None = None
        self._next_sweep = 0.0
        self._has_backlog = False
        self._blocked: set[UUID] = set()
        self._failure: Unavailable | None = None

    def update(
        self, state: mongo.Document, events: Sequence[Message], now: datetime, *, at_once: bool
    ) -> mongo.Document:
        """The update that saves this state and its events.

        `at_once`: none can be before these, so that the update leases them to this process. Otherwise they
        are free, or behind those that another relay holds.
        """
        if not events:
            return {"$set": state}
        push = {"outbox": {"$each": [{**asdict(event), "saved_at": now} for event in events]}}
        update: mongo.Document = {"$set": {**state, "saved_at": now}, "$push": push}
        if at_once:
            update["$set"]["lease.seconds"] = self._lease
            update["$currentDate"] = {"lease.since": True}
        return update

    def expiry(self) -> float:
        """When a lease ends that begins now."""
        return self._monotonic() + self._lease

    def saved(self, appointment_id: UUID, claimed: Sequence[ClaimedMessage], *, at_once: bool) -> None:
        """Hand over what is saved, or have the sweep find it."""
        if at_once and len(self._ready) < MAX_READY:
            self._ready.extend(claimed)
            self._woken.set()
        else:
            self._has_backlog = True
            if not at_once and len(self._blocked) < MAX_READY:
                self._blocked.add(appointment_id)  # until those before it are confirmed, if they are in hand
            self._sweep_soon()

    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        while True:
            self._woken.clear()
            is_due = self._monotonic() >= self._next_sweep
            if self._sweeping is None and len(self._ready) < limit and is_due:
                self._sweeping = self._database.run(self._sweep(limit))
            if self._ready:
                return [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
            wait = None if self._sweeping else max(0.001, self._next_sweep - self._monotonic())
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._woken.wait()
            if self._failure:
                failure, self._failure = self._failure, None
                raise failure

    async def confirm(self, published: Sequence[PublishResult]) -> None:
        if not published:
            return
        with mongo.translate_errors():
            details = await mongo.bulk(self._documents, [_confirmation(result) for result in published])
            failed = [published[error["index"]] for error in details["writeErrors"]]
            if details["writeConcernErrors"]:
                raise Unavailable("MongoDB does not say whether the confirmation is safe")
            if failed:  # where there is no room for a note: without one
                await self._documents.bulk_write([_removal(result) for result in failed], ordered=False)
        confirmed = {UUID(result.message.subject) for result in published}
        if self._has_backlog or confirmed & self._blocked:
            self._blocked -= confirmed
            self._sweep_soon()

    async def waiting(
        self, limit: int, before: datetime | None = None, after: Waiting | None = None
    ) -> Sequence[Waiting]:
        bounds = mongo.given(**{"$lt": before, "$gt": after and after[0]})
        query = mongo.given(**UNPUBLISHED, **ADDED, saved_at=bounds or None)
        if after is not None:  # two ranges of the index: many are saved in one millisecond
            beside = mongo.given(**{"$lt": before, "$eq": after[0]})
            query = {"$or": [query | {"saved_at": beside, "_id": {"$gt": _key(after[1])}}, query]}
        found = self._documents.find(query, {"saved_at": True}).sort(BY_PLACE).hint(BY_PLACE).limit(limit)
        return await self._database.fetch(found, lambda it: (_saved_at(None, it), str(it["_id"])))

    async def oldest(self) -> datetime | None:
        query = self._documents.find({**UNPUBLISHED, **ADDED}, {"saved_at": True, "outbox.saved_at": True})
        oldest = query.sort(BY_SAVE).hint(BY_SAVE).limit(1)
        saves = await self._database.fetch(
            oldest, lambda it: min(_saved_at(each, it) for each in it["outbox"])
        )
        return next(iter(saves), None)

    async def count(self, limit: int) -> int:
        with mongo.translate_errors():
            return await self._documents.count_documents(UNPUBLISHED, limit=limit, hint=BY_SAVE)

    async def status(self, event: Message) -> PublicationStatus | None:
        shown = {"saved_at": True, "outbox.id": True, "outbox.saved_at": True, "published": True}
        with mongo.translate_errors():
            found = await self._documents.find_one({"_id": _key(event.subject)}, shown)
        return _status(event.id, found) if found else None

    @property
    def _documents(self) -> mongo.Collection:
        return self._database.collection("appointments")

    def _sweep_soon(self) -> None:
        self._next_sweep = 0.0
        self._woken.set()

    async def _sweep(self, limit: int) -> None:
        # A task of its own: the driver does not end when its caller is cancelled, and nothing that is taken
        # may be lost.
        self._next_sweep = self._monotonic() + min(self._lease / 2, MAX_SWEEP)
        try:
            claimed = await self._claim_expired(limit)
            self._ready.extend(claimed)
            if claimed:
                self._next_sweep = 0.0  # there may be more
            else:
                self._has_backlog = False
        except Exception as error:  # noqa: BLE001 — a task of its own: nobody else would hear of it
            self._failure = Unavailable(f"the outbox cannot be read: {error}")
        finally:
            self._sweeping = None
            self._woken.set()

    async def _claim_expired(self, limit: int) -> Sequence[ClaimedMessage]:
        """Events whose lease is over by the server's clock: a dead process left them, or a save whose outcome
        was unknown. A lease that begins later than a lease from now is over too: the clock was set back.
        """
        expires_at = self.expiry()
        token = uuid4()
        with mongo.translate_errors():
            oldest = self._documents.find({**UNPUBLISHED, **ADDED}, {"_id": True}).sort("lease.since")
            ids = [document["_id"] async for document in oldest.limit(limit)]
            if not ids:
                return []
            since, now = _number("$lease.since"), _number("$$NOW")
            over = {"$add": [since, {"$multiply": [_number("$lease.seconds"), 1000]}]}
            ahead = {"$add": [now, self._lease * 1000]}
            is_free = {"$or": [{"$lte": [over, now]}, {"$gt": [since, ahead]}]}
            free = {"_id": {"$in": ids}, **UNPUBLISHED, **ADDED, "$expr": is_free}
            lease = {"since": "$$NOW", "seconds": self._lease, "token": token}
            # Merged, it takes the place of whatever is there.
            update = [{"$set": {"lease": {"$mergeObjects": [lease]}}}]
            if not (await self._documents.update_many(free, update)).modified_count:
                return []
            shown = {"saved_at": True, "outbox": True}
            leased = self._documents.find({"_id": {"$in": ids}, "lease.token": token}, shown)
            return [
                ClaimedMessage(_message(event, document["_id"]), _saved_at(event, document), expires_at)
                async for document in leased
                for event in document["outbox"]
            ]


def _number(of: str) -> mongo.Document:
    """Also where something else has written there: else one such lease would stop every sweep."""
    return {"$convert": {"input": of, "to": "double", "onError": 0, "onNull": 0}}


def _confirmation(result: PublishResult) -> UpdateOne:
    note = {f"published.{result.message.id}": {"position": result.position, "at": result.at}}
    return _removal(result, **{"$set": note})


def _removal(result: PublishResult, **more: mongo.Document) -> UpdateOne:
    removal = {"$pull": {"outbox": {"id": result.message.id}}, "$unset": {"lease": True}}
    return UpdateOne({"_id": UUID(result.message.subject)}, removal | more)


def _key(subject: str) -> UUID | str:
    try:
        return UUID(subject)
    except ValueError:
        return subject


def _status(event_id: str, document: mongo.Document) -> PublicationStatus | None:
    try:
        for waiting in document.get("outbox", ()):
            if _event_id(waiting) == event_id:
                return PublicationStatus(_saved_at(waiting, document))
        note = document.get("published", {}).get(event_id)
        return note and PublicationStatus(_saved_at(None, document), note["at"], note["position"])
    except (AttributeError, KeyError, TypeError) as error:
        raise Unavailable(f"whether event {event_id} is published cannot be read: {error!r}") from error


def _saved_at(event: object, document: mongo.Document) -> datetime:
    found = event.get("saved_at") if isinstance(event, dict) else None
    times = (each for each in (found, document.get("saved_at")) if isinstance(each, datetime))
    return next(times, datetime.fromtimestamp(0, UTC))


def _event_id(event: object) -> str:
    return str(event.get("id") if isinstance(event, dict) else event)


def _message(event: object, subject: object) -> Message:
    """What can be published, and confirmed afterwards."""
    event_id = _event_id(event)
    is_name = isinstance(subject, UUID) and event_id.replace("-", "").isalnum()
    return event_of(event_id, str(subject), lambda: is_name and msgspec.convert(event, Message))
