"""Dead letters in MongoDB, each under its position."""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import asdict
from pymongo import ASCENDING, IndexModel, UpdateOne

from clinic.adapters import cloudevents
from clinic.adapters.mongo.database import (
    Collection,
    CollectionSchema,
    Document,
    MongoDatabase,
    translate_errors,
)
from clinic.domain.errors import Conflict, NotFound
from clinic.domain.messaging.dead_letters import (
    MAX_NAME,
    DeadLetter,
    DeadLetterFilter,
    DeadLetters,
    HistoryEntry,
    LetterGroup,
    about,
    fingerprint,
)

BY_GROUP: Final = [
    (name, ASCENDING) for name in ("group", "_id", "state", "first_seen", "last_seen", "reason")
]
"""Holds all that the list of groups shows: it reads no letter, however large."""
DEAD_LETTERS: Final = CollectionSchema(
    "dead_letters",
    IndexModel([("state", ASCENDING), ("_id", ASCENDING)]),
    IndexModel([("about", ASCENDING), ("_id", ASCENDING)]),
    IndexModel(BY_GROUP),
)
ANY_GROUP: Final = {"$match": {"group": {"$gte": ""}}}
"""Leads to the index, without depending on it: a command may come before the service has made it."""


class MongoDeadLetters(DeadLetters):
    """Dead letters, in the collection `dead_letters`."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        with translate_errors():
            await self._documents.bulk_write([_keeping(each) for each in letters])

    async def get(self, position: str) -> DeadLetter:
        with translate_errors():
            await self._bring_up_to_date()
            document = await self._documents.find_one({"_id": position})
        if document is None:
            raise NotFound(f"there is no dead letter at {position}")
        return _letter(document)

    async def page(self, matching: DeadLetterFilter, limit: int, after: str = "") -> Sequence[DeadLetter]:
        query: Document = {name: value for name, value in asdict(matching).items() if value is not None}
        if matching.message_ids is not None:
            query["message_id"] = {"$in": query.pop("message_ids")}
        with translate_errors():
            await self._bring_up_to_date()
            found = (
                self._documents.find({**query, "_id": {"$gt": after}}, {"value": False})
                .sort("_id", ASCENDING)
                .limit(limit)
            )
            return [_letter({**document, "value": None}) async for document in found]

    async def groups(self) -> Sequence[LetterGroup]:
        with translate_errors():
            await self._bring_up_to_date()
            found = await self._documents.aggregate([ANY_GROUP, {"$group": _counted()}])
            groups = [LetterGroup(group=document.pop("_id"), **document) async for document in found]
        return sorted(groups, key=lambda each: each.group)

    async def record(self, letter: DeadLetter, entry: HistoryEntry) -> None:
        # Handlings are never removed: where there is none at this place, there are exactly those that were
        # read.
        as_read = {"_id": letter.position, f"handled.{len(letter.history)}": {"$exists": False}}
        update = {"$push": {"handled": asdict(entry)}, "$set": {"state": letter.with_entry(entry).state}}
        with translate_errors():
            matched = (await self._documents.update_one(as_read, update)).matched_count
        if not matched:
            await self.get(letter.position)
            raise Conflict(f"the dead letter at {letter.position} was handled by somebody else meanwhile")

    @property
    def _documents(self) -> Collection:
        return self._database.collection("dead_letters")

    async def _bring_up_to_date(self) -> None:
        # Letters from before there were states, also those that an instance of an older version writes at
        # this moment.
        async for old in self._documents.find({"state": None}):
            await self._documents.update_one({"_id": old["_id"], "state": None}, {"$set": _what_is_new(old)})


def _keeping(letter: DeadLetter) -> UpdateOne:
    first = asdict(letter)
    again = {name: first.pop(name) for name in ("reason", "group", "last_seen")}
    attempts = first.pop("attempts")
    position = first.pop("position")
    first["headers"] = [list(header) for header in letter.headers]
    first["handled"] = [asdict(each) for each in letter.history]
    return UpdateOne(
        {"_id": position}, {"$setOnInsert": first, "$set": again, "$inc": {"attempts": attempts}}, upsert=True
    )


def _counted() -> Document:
    states = {
        state: {"$sum": {"$cond": [{"$eq": ["$state", state]}, 1, 0]}}
        for state in ("waiting", "replayed", "discarded")
    }
    seen = {"first_seen": {"$min": "$first_seen"}, "last_seen": {"$max": "$last_seen"}}
    return {"_id": "$group", **states, "reason": {"$min": "$reason"}, **seen}


def _what_is_new(old: Document) -> Document:
    message = cloudevents.message(
        old["key"], [(name, content) for name, content in old["headers"]], old["value"]
    )
    return {
        "about": about(message),
        "type": message.type[:MAX_NAME],
        "published_at": old["first_seen"],
        "group": fingerprint(old["reason"]),
        "state": "waiting",
        "handled": [],
    }


def _letter(document: Document) -> DeadLetter:
    position = document.pop("_id")
    headers = tuple((name, content) for name, content in document.pop("headers"))
    history = tuple(HistoryEntry(**each) for each in document.pop("handled"))
    return DeadLetter(position=position, headers=headers, history=history, **document)
