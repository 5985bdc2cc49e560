"""Appointments and their outbox in MongoDB: one document holds an appointment and its unpublished facts, so
one write keeps both.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import Any, Final
from uuid import UUID, uuid4

from msgspec import Struct
from msgspec.structs import asdict, replace
from pymongo import ASCENDING, DESCENDING, InsertOne, UpdateOne

from clinic.adapters.group_commit import GroupCommit
from clinic.adapters.mongo.database import (
    DUPLICATE,
    Collection,
    Document,
    MongoDatabase,
    bulk,
    decimal,
    fetch_all,
    money,
    translate_errors,
)
from clinic.domain.appointment import ports as appointment
from clinic.domain.appointment.model import Appointment
from clinic.domain.errors import ClinicError, Conflict, NotFound, Unavailable
from clinic.domain.messaging.messages import ClaimedMessage, Message, PublicationStatus, PublishResult
from clinic.domain.messaging.ports import Clock, Outbox

MAX_READY: Final = 10_000
"""Facts that a process keeps in hand for its relay; the sweep finds what is beyond."""
UNPUBLISHED: Final = {"outbox.0.id": {"$exists": True}}
ADDED: Final = {"added_at": {"$exists": True}}
"""Saving what was never added makes a document that is no appointment, until it is removed again."""


class _Write(Struct):
    """An operation of a group: what it is, what it makes, and the facts that its caller's process may publish
    at once.
    """

    request: InsertOne[Document] | UpdateOne
    result: Appointment
    events: Sequence[Message] = ()
    at_once: bool = False


class MongoAppointments(appointment.Appointments, Outbox):
    """Appointments and their outbox, in the collection `appointments`."""

    def __init__(self, database: MongoDatabase, clock: Clock, lease: float) -> None:
        self._database, self._clock, self._lease = database, clock, lease
        self._write = GroupCommit(self._write_group)
        self._load = GroupCommit(self._load_group)
        self._ready: deque[ClaimedMessage] = deque()
        self._woken = asyncio.Event()
        self._sweeping: asyncio.Task[None] | None = None
        self._next_sweep = 0.0
        self._has_backlog = False
        self._blocked: set[UUID] = set()
        self._trouble: Unavailable | None = None

    async def open(self) -> None:
        await self._database.open()
        await self._database.check_sharding("appointments")
        with translate_errors():
            await self._documents.create_index([("physician_id", ASCENDING), ("_id", ASCENDING)])
            await self._documents.create_index([("patient_id", ASCENDING), ("_id", ASCENDING)])
            await self._documents.create_index(
                [("lease.since", ASCENDING)], partialFilterExpression=UNPUBLISHED
            )

    async def close(self) -> None:
        if self._sweeping is not None:
            await asyncio.wait([self._sweeping])
        await self._database.close()

    async def check(self) -> None:
        await self._database.check()

    async def add(self, appointment: Appointment) -> None:
        insert = InsertOne({"_id": appointment.id, **_state(appointment), "added_at": self._clock()})
        await self._database.with_timeout(self._write(_Write(insert, appointment)))

    async def get(self, appointment_id: UUID) -> Appointment:
        return await self._database.with_timeout(self._load(appointment_id))

    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        # Where the version has moved on, the upsert collides on _id, and that one operation of the group
        # fails.
        known = {"_id": appointment.id, "version": appointment.version, **ADDED}
        saved = replace(appointment, version=appointment.version + 1)
        # The first save of an appointment has no facts before it that its own could overtake.
        at_once = bool(events) and appointment.version == 1
        update = UpdateOne(known, self._saving(saved, events, at_once=at_once), upsert=True)
        return await self._database.with_timeout(self._write(_Write(update, saved, events, at_once)))

    async def page(
        self, matching: appointment.AppointmentFilter, limit: int, after: UUID | None = None
    ) -> Sequence[Appointment]:
        query: Document = {**ADDED} if after is None else {**ADDED, "_id": {"$lt": after}}
        if matching.physician_id is not None:
            query["physician_id"] = matching.physician_id
        if matching.patient_id is not None:
            query["patient_id"] = matching.patient_id
        if matching.finished is not None:
            query["end"] = {"$ne": None} if matching.finished else None
        found = self._documents.find(query, {"outbox": False}).sort("_id", DESCENDING).limit(limit)
        return [_appointment(document) for document in await self._database.with_timeout(fetch_all(found))]

    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        while True:
            self._woken.clear()
            if self._sweeping is None and len(self._ready) < limit and monotonic() >= self._next_sweep:
                self._sweeping = asyncio.create_task(self._sweep(limit))
            if self._ready:
                return [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
            with suppress(TimeoutError):
                wait = None if self._sweeping else max(0.001, self._next_sweep - monotonic())
                await asyncio.wait_for(self._woken.wait(), wait)
            if self._trouble:
                problem, self._trouble = self._trouble, None
                raise problem

    async def confirm(self, published: Sequence[PublishResult]) -> None:
        requests = [_confirmation(each) for each in published]
        if not requests:
            return
        with translate_errors():
            await self._documents.bulk_write(requests, ordered=False)
        confirmed = {UUID(each.message.subject) for each in published}
        if self._has_backlog or confirmed & self._blocked:
            self._blocked -= confirmed
            self._sweep_soon()

    async def oldest(self) -> datetime | None:
        unpublished = {"$match": {**UNPUBLISHED, **ADDED}}
        oldest = {"$group": {"_id": None, "saved_at": {"$min": {"$min": "$outbox.saved_at"}}}}
        with translate_errors():
            async for found in await self._documents.aggregate(
                [unpublished, oldest], hint={"lease.since": ASCENDING}
            ):
                return found["saved_at"]  # type: ignore[no-any-return]
        return None

    async def status(self, event: Message) -> PublicationStatus | None:
        with translate_errors():
            shown = {
                "saved_at": True,
                "outbox.id": True,
                "outbox.saved_at": True,
                f"published.{event.id}": True,
            }
            found = await self._documents.find_one({"_id": UUID(event.subject)}, shown)
        return _status(event.id, found) if found else None

    @property
    def _documents(self) -> Collection:
        return self._database.collection("appointments")

    def _saving(self, saved: Appointment, events: Sequence[Message], *, at_once: bool) -> Document:
        if not events:
            return {"$set": _state(saved)}
        now = self._clock()
        state = {**_state(saved), "saved_at": now}
        news = {"outbox": {"$each": [{**asdict(event), "saved_at": now} for event in events]}}
        if at_once:
            return {
                "$set": {**state, "lease.seconds": self._lease},
                "$currentDate": {"lease.since": True},
                "$push": news,
            }
        # Without a lease of its own: free, or behind the facts that another relay holds.
        return {"$set": state, "$push": news}

    async def _write_group(self, group: Sequence[_Write]) -> Sequence[Appointment | ClinicError]:
        until = monotonic() + self._lease
        with translate_errors():
            details = await bulk(self._documents, [each.request for each in group])
        outcomes = [_outcome(index, each, details) for index, each in enumerate(group)]
        if details["upserted"]:
            await self._forget([each["_id"] for each in details["upserted"]])
        for each, outcome in zip(group, outcomes, strict=True):
            if each.events and isinstance(outcome, Appointment):
                self._hand_over(each, until)
        return outcomes

    def _hand_over(self, write: _Write, until: float) -> None:
        if write.at_once and len(self._ready) < MAX_READY:
            self._ready.extend(ClaimedMessage(event, until) for event in write.events)
            self._woken.set()
        else:
            self._has_backlog = True
            if not write.at_once and len(self._blocked) < MAX_READY:
                self._blocked.add(write.result.id)  # until those before it are confirmed, if they are in hand
            self._sweep_soon()

    def _sweep_soon(self) -> None:
        self._next_sweep = 0.0
        self._woken.set()

    async def _sweep(self, limit: int) -> None:
        # A task of its own: the driver does not end when its caller is cancelled, and nothing that is taken
        # may be lost.
        self._next_sweep = monotonic() + self._lease / 2
        try:
            taken = await self._claim_expired(limit)
            self._ready.extend(taken)
            if taken:
                self._next_sweep = 0.0  # there may be more
            else:
                self._has_backlog = False
        except Unavailable as problem:
            self._trouble = problem
        except Exception as error:  # noqa: BLE001 — a task of its own: nobody else would hear of it
            self._trouble = Unavailable(f"the outbox cannot be read: {error!r}")
        finally:
            self._sweeping = None
            self._woken.set()

    async def _forget(self, ids: Sequence[UUID]) -> None:
        # Saving what was never added has made documents that are no appointments. Whoever saved hears of it
        # in any case.
        with suppress(Unavailable), translate_errors():
            await self._documents.delete_many({"_id": {"$in": ids}, "added_at": {"$exists": False}})

    async def _load_group(self, ids: Sequence[UUID]) -> Sequence[Appointment | ClinicError]:
        with translate_errors():
            found = {
                each["_id"]: each
                async for each in self._documents.find(
                    {"_id": {"$in": list(ids)}, **ADDED}, {"outbox": False}
                )
            }
        return [
            _appointment(found[each]) if each in found else NotFound(f"there is no appointment {each}")
            for each in ids
        ]

    async def _claim_expired(self, limit: int) -> Sequence[ClaimedMessage]:
        """Facts whose lease is over by the server's clock: a dead process left them, or a save whose outcome
        was unknown.
        """
        until, token = monotonic() + self._lease, uuid4()
        with translate_errors():
            oldest = (
                self._documents.find(UNPUBLISHED, {"_id": True}).sort("lease.since", ASCENDING).limit(limit)
            )
            ids = [each["_id"] async for each in oldest]
            if not ids:
                return []
            over = {"$add": ["$lease.since", {"$multiply": ["$lease.seconds", 1000]}]}
            free = {"_id": {"$in": ids}, **UNPUBLISHED, **ADDED, "$expr": {"$lte": [over, "$$NOW"]}}
            lease = {"lease.seconds": self._lease, "lease.token": token}
            if not (
                await self._documents.update_many(
                    free, {"$set": lease, "$currentDate": {"lease.since": True}}
                )
            ).modified_count:
                return []
            taken = self._documents.find({"_id": {"$in": ids}, "lease.token": token}, {"outbox": True})
            return [
                ClaimedMessage(_message(event), until) async for each in taken for event in each["outbox"]
            ]


def _outcome(index: int, write: _Write, details: Mapping[str, Any]) -> Appointment | ClinicError:
    for error in details["writeErrors"]:
        if error["index"] == index:
            taken = error["code"] == DUPLICATE
            return (
                Conflict(f"appointment {write.result.id} was saved by somebody else")
                if taken
                else Unavailable(str(error["errmsg"]))
            )
    if details["writeConcernErrors"]:
        # Applied, but not safe: another primary may never have seen it.
        return Unavailable("MongoDB does not say whether the write is safe")
    if any(each["index"] == index for each in details["upserted"]):
        return Conflict(f"appointment {write.result.id} was never added")
    return write.result


def _confirmation(published: PublishResult) -> UpdateOne:
    event_id = published.message.id
    note = {f"published.{event_id}": {"position": published.position, "at": published.at}}
    pull = {"outbox": {"id": event_id}}
    return UpdateOne(
        {"_id": UUID(published.message.subject)}, {"$pull": pull, "$set": note, "$unset": {"lease": True}}
    )


def _status(event_id: str, document: Document) -> PublicationStatus | None:
    for waiting in document.get("outbox", ()):
        if waiting["id"] == event_id:
            return PublicationStatus(waiting["saved_at"])
    note = document.get("published", {}).get(event_id)
    return note and PublicationStatus(document["saved_at"], note["at"], note["position"])


def _state(appointment: Appointment) -> Document:
    return {
        "physician_id": appointment.physician_id,
        "patient_id": appointment.patient_id,
        "price": decimal(appointment.price),
        "start": appointment.start,
        "end": appointment.end,
        "version": appointment.version,
    }


def _appointment(document: Document) -> Appointment:
    return Appointment(
        id=document["_id"],
        physician_id=document["physician_id"],
        patient_id=document["patient_id"],
        price=money(document["price"]),
        start=document["start"],
        end=document["end"],
        version=document["version"],
    )


def _message(document: Document) -> Message:
    return Message(**{name: document[name] for name in Message.__struct_fields__ if name in document})
