"""Appointments in MongoDB: one write saves an appointment and its events, in one document."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import asdict, replace
from pymongo import ASCENDING, DESCENDING, IndexModel, InsertOne, UpdateOne

from clinic.adapters.group_commit import GroupCommit
from clinic.adapters.mongo import database as mongo
from clinic.adapters.mongo.outbox import ADDED, BY_PLACE, BY_SAVE, UNPUBLISHED, MongoOutbox
from clinic.adapters.stored import attempt, restored
from clinic.domain.appointment import ports as appointment
from clinic.domain.appointment.model import Appointment
from clinic.domain.errors import ClinicError, Conflict, NotFound, Unavailable
from clinic.domain.messaging.messages import ClaimedMessage, Message
from clinic.domain.messaging.ports import Clock

OPEN: Final = {"end": {"$type": "null"}}
"""How a partial index says `null`: the query must say it in the same way."""
OPEN_BY_ID: Final = [("end", ASCENDING), ("_id", ASCENDING)]
BY_PATIENT: Final = [("patient_id", ASCENDING), ("_id", ASCENDING)]
APPOINTMENTS: Final = mongo.CollectionSchema(
    "appointments",
    IndexModel([("physician_id", ASCENDING), ("_id", ASCENDING)]),
    IndexModel(BY_PATIENT),
    IndexModel(OPEN_BY_ID, partialFilterExpression=OPEN),
    IndexModel([("lease.since", ASCENDING)], partialFilterExpression=UNPUBLISHED),
    IndexModel(BY_SAVE, partialFilterExpression=UNPUBLISHED),
    IndexModel(BY_PLACE, partialFilterExpression=UNPUBLISHED),
)
BESIDE: Final = 4
"""Operations under way beside which another group begins: a lone request waits for no other's round trip."""
KEYS: Final = mongo.CollectionSchema("idempotency_keys")
"""Each appointment that was added once, as it was added."""


class _Write(Struct):
    """An operation of a group: its time, result and events. `at_once`: this process may publish them."""

    request: InsertOne[mongo.Document] | UpdateOne
    at: datetime
    result: Appointment
    events: Sequence[Message] = ()
    at_once: bool = False


class MongoAppointments(appointment.Appointments):
    """Appointments, in the collection `appointments`. Their events are `outbox`'s to hand over."""

    def __init__(self, database: mongo.MongoDatabase, clock: Clock, outbox: MongoOutbox) -> None:
        self._database, self._outbox = database, outbox
        self._clock = clock
        self._reserve = GroupCommit(self._reserve_group, timeout=database.timeout)
        self._write = GroupCommit(self._write_group, beside=BESIDE, timeout=database.timeout)
        self._load = GroupCommit(self._load_group, beside=BESIDE, timeout=database.timeout)

    async def check(self) -> None:
        await self._database.check()

    async def add(self, appointment: Appointment, *, once: bytes = b"") -> Appointment:
        # The reservation says what to add: who comes second adds the same, or finds it added.
        if once:
            appointment = await self._reserve((once, appointment))
        now = self._clock()
        insert = InsertOne({"_id": appointment.id, **_state(appointment), "added_at": now})
        with suppress(Conflict) if once else nullcontext():
            await self._write(_Write(insert, now, appointment))
        return appointment

    async def get(self, appointment_id: UUID) -> Appointment:
        return await self._load(appointment_id)

    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        # Where somebody saved first, the upsert collides on _id, and that one operation of the group fails.
        known = {"_id": appointment.id, "version": appointment.version, **ADDED}
        saved = replace(appointment, version=appointment.version + 1)
        # The first save of an appointment has no events before it that its own could overtake.
        at_once = bool(events) and appointment.version == 1
        now = self._clock()
        update = self._outbox.update(_state(saved), events, now, at_once=at_once)
        write = _Write(UpdateOne(known, update, upsert=True), now, saved, events, at_once)
        return await self._write(write)

    async def page(
        self, matching: appointment.AppointmentFilter, limit: int, after: UUID | None = None
    ) -> Sequence[Appointment]:
        people = {"physician_id": matching.physician_id, "patient_id": matching.patient_id}
        start = mongo.given(**{"$lt": matching.started_before}) or None
        query = mongo.given(**ADDED, **people, start=start, _id=after and {"$lt": after})
        if matching.finished is not None:
            query |= {"end": {"$ne": None}} if matching.finished else OPEN
        found = self._documents.find(query, {"outbox": False}).sort("_id", DESCENDING).limit(limit)
        # The planner may try, and keep, an index that reads all of a physician's history.
        if matching.finished is False:
            found = found.hint(OPEN_BY_ID)
        elif matching.patient_id is not None:
            found = found.hint(BY_PATIENT)
        return await self._database.fetch(found, _appointment)

    @property
    def _documents(self) -> mongo.Collection:
        return self._database.collection("appointments")

    async def _reserve_group(
        self, group: Sequence[tuple[bytes, Appointment]]
    ) -> Sequence[Appointment | ClinicError]:
        keys = self._database.collection(KEYS.name)
        seen = await mongo.insert_new(keys, [{"_id": key, "id": new.id, **_state(new)} for key, new in group])
        if not seen:
            return [new for _, new in group]
        found = await mongo.fetch_all(keys.find({"_id": {"$in": [group[index][0] for index in seen]}}))
        first = {document["_id"]: attempt(_reserved, document) for document in found}
        unknown = Unavailable("another request adds it at this moment")
        return [first.get(key, unknown) if index in seen else new for index, (key, new) in enumerate(group)]

    async def _write_group(self, group: Sequence[_Write]) -> Sequence[Appointment | ClinicError]:
        expires_at = self._outbox.expiry()
        with mongo.translate_errors():
            details = await mongo.bulk(self._documents, [write.request for write in group])
        is_whole = mongo.is_whole(details, group)
        outcomes = [_outcome(index, write, details, is_whole) for index, write in enumerate(group)]
        if details["upserted"]:
            await self._forget([upserted["_id"] for upserted in details["upserted"]])
        for write, outcome in zip(group, outcomes, strict=True):
            if write.events and isinstance(outcome, Appointment):
                claimed = [ClaimedMessage(event, write.at, expires_at) for event in write.events]
                self._outbox.saved(outcome.id, claimed, at_once=write.at_once)
        return outcomes

    async def _forget(self, ids: Sequence[UUID]) -> None:
        # A save of what was never added made documents that are not appointments; the caller gets a Conflict.
        with suppress(Unavailable), mongo.translate_errors():
            await self._documents.delete_many({"_id": {"$in": ids}, "added_at": {"$exists": False}})

    async def _load_group(self, ids: Sequence[UUID]) -> Sequence[Appointment | ClinicError]:
        documents = self._documents.find({"_id": {"$in": list(ids)}, **ADDED}, {"outbox": False})
        found = {each["_id"]: attempt(_appointment, each) for each in await mongo.fetch_all(documents)}
        return [found.get(id_) or NotFound(f"there is no appointment {id_}") for id_ in ids]


def _outcome(
    index: int, write: _Write, details: Mapping[str, Any], is_whole: bool
) -> Appointment | ClinicError:
    for error in details["writeErrors"]:
        if error["index"] == index:
            if error["code"] == mongo.DUPLICATE:
                return Conflict(f"appointment {write.result.id} was saved by somebody else")
            return Unavailable(str(error["errmsg"]))
    if not is_whole:
        # Applied, but not safe: another primary may never have seen it. Or not applied, and no error either.
        return Unavailable("MongoDB does not say whether the write is safe")
    if any(upserted["index"] == index for upserted in details["upserted"]):
        return Conflict(f"appointment {write.result.id} was never added")
    return write.result


def _state(appointment: Appointment) -> mongo.Document:
    state = asdict(appointment) | {"price": mongo.decimal(appointment.price)}
    del state["id"]
    return state


def _appointment(document: mongo.Document) -> Appointment:
    return _reserved({**document, "id": document["_id"]})


def _reserved(kept: mongo.Document) -> Appointment:
    """An appointment whose document has another id than its own."""
    return restored(Appointment, kept["_id"], lambda: {**kept, "price": mongo.money(kept["price"])})
