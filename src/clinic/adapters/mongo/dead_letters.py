"""Dead letters in MongoDB by position, and the entries of their histories by `position/number`."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final, get_args

from msgspec.structs import asdict, replace
from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne
from pymongo.errors import DuplicateKeyError

from clinic.adapters.mongo import database as mongo
from clinic.adapters.stored import restored
from clinic.domain.errors import Conflict, NotFound, Unreadable
from clinic.domain.messaging import dead_letters
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetterFilter, DeadLetters, HistoryEntry

BY_GROUP: Final = [(key, ASCENDING) for key in ("group", "_id", "state", "first_seen", "last_seen", "reason")]
"""Holds all that the list of groups shows: it reads no letter, however large."""
DEAD_LETTERS: Final = mongo.CollectionSchema(
    "dead_letters",
    IndexModel([("state", ASCENDING), ("_id", ASCENDING)]),
    IndexModel([("state", ASCENDING), ("group", ASCENDING), ("_id", ASCENDING)]),
    IndexModel([("about", ASCENDING), ("_id", ASCENDING)]),
    IndexModel(BY_GROUP),
)
HISTORY: Final = mongo.CollectionSchema(
    "dead_letter_history",
    IndexModel([("position", ASCENDING), ("number", ASCENDING)]),
    IndexModel([("at", ASCENDING), ("_id", ASCENDING)]),  # for a list of who did what, of all letters
)
NUMBERED: Final = {"position": {"$gte": ""}, "number": {"$gte": 0}}
"""The entries that are of a history: others have no place in one."""
BY_TIME: Final = [("at", DESCENDING), ("_id", DESCENDING)]
MAX_INCOMPLETE: Final = 20  # of the newest entries, one may lack its letter's state
ANY_GROUP: Final = {"$match": {"group": {"$gte": ""}}}
"""Leads to the index, without depending on it: a command may come before the service has made it."""


class MongoDeadLetters(DeadLetters):
    """Dead letters, in the collections `dead_letters` and `dead_letter_history`."""

    def __init__(self, database: mongo.MongoDatabase) -> None:
        self._database = database

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        with mongo.translate_errors():
            await self._documents.bulk_write([update for letter in letters for update in _adding(letter)])

    async def get(self, position: str) -> DeadLetter:
        with mongo.translate_errors():
            document = await self._documents.find_one({"_id": position})
            if document is None:
                raise NotFound(f"there is no dead letter at {position}")
            newest = self._history.find({**NUMBERED, "position": position}).sort("number", DESCENDING)
            found = (await newest.limit(dead_letters.MAX_HISTORY).to_list())[::-1]
            history = tuple(_recorded(entry)[1] for entry in found)
            letter = replace(_letter(document), history=history)
            return await self._completed(letter, found[-1]["number"] + 1 if found else 0)

    async def page(self, matching: DeadLetterFilter, limit: int, after: str = "") -> Sequence[DeadLetter]:
        query = mongo.given(**asdict(matching), _id={"$gt": after})
        if not after:
            await self._database.with_timeout(self._complete_newest())
        found = self._documents.find(query, {"value": False}).sort("_id", ASCENDING).limit(limit)
        return await self._database.fetch(found, lambda document: _letter({**document, "value": None}))

    async def groups(self) -> Sequence[dead_letters.LetterGroup]:
        with mongo.translate_errors():
            await self._complete_newest()
            found = await self._documents.aggregate([ANY_GROUP, {"$group": _counted()}])
            named = [(document.pop("_id"), document) async for document in found]
        groups = [
            restored(dead_letters.LetterGroup, name, partial(dict, group, group=name))
            for name, group in named
        ]
        return sorted(groups, key=lambda group: group.group)

    async def record(self, letter: DeadLetter, entry: HistoryEntry) -> None:
        number = letter.entries
        document = {"_id": f"{letter.position}/{number}", "position": letter.position, "number": number}
        with mongo.translate_errors():
            if await self._documents.find_one({"_id": letter.position}, {"_id": True}) is None:
                raise NotFound(f"there is no dead letter at {letter.position}")
            try:
                await self._history.insert_one(document | asdict(entry))
            except DuplicateKeyError:
                raise Conflict(f"the dead letter at {letter.position} was handled by somebody else") from None
            await self._follow(letter.with_entry(entry))

    async def history(
        self, limit: int, after: dead_letters.HistoryCursor | None = None
    ) -> Sequence[dead_letters.RecordedEntry]:
        query: mongo.Document = {**NUMBERED}
        if after is not None:
            behind = {"_id": {"$lt": f"{after.position}/{after.number}"}}
            query |= {"at": {"$lte": after.at}, "$or": [{"at": {"$lt": after.at}}, behind]}
        found = self._history.find(query).sort(BY_TIME).limit(limit)
        return await self._database.fetch(found, _recorded)

    async def _completed(self, letter: DeadLetter, entries: int) -> DeadLetter:
        """The letter in the state that its history says: a crash may have come between entry and state."""
        missing = entries - letter.entries
        if missing <= 0:
            return letter
        changes = map(dead_letters.NEXT_STATE.get, (each.event for each in letter.history[-missing:]))
        completed = replace(letter, state=[letter.state, *filter(None, changes)][-1], entries=entries)
        await self._follow(completed)
        return completed

    async def _complete_newest(self) -> None:
        """Complete what was begun last: lists show states, and a crash leaves its entry among the newest."""
        with mongo.translate_errors():
            newest = self._history.find(NUMBERED, {"position": True, "number": True}).sort(BY_TIME)
            last: dict[str, int] = {}
            async for entry in newest.limit(MAX_INCOMPLETE):
                last[entry["position"]] = max(entry["number"], last.get(entry["position"], 0))
            begun = {"_id": {"$in": [*last]}, "entries": {"$gte": 0}}
            async for letter in self._documents.find(begun, {"entries": True}):
                if letter["entries"] <= last[letter["_id"]]:
                    with suppress(Unreadable):  # one that cannot be read is no reason to list nothing
                        await self.get(letter["_id"])

    async def _follow(self, letter: DeadLetter) -> None:
        older = {"_id": letter.position, "entries": {"$lt": letter.entries}}
        await self._documents.update_one(older, {"$set": {"state": letter.state, "entries": letter.entries}})

    @property
    def _documents(self) -> mongo.Collection:
        return self._database.collection("dead_letters")

    @property
    def _history(self) -> mongo.Collection:
        return self._database.collection("dead_letter_history")


def _adding(letter: DeadLetter) -> list[UpdateOne]:
    """First its arrival, where it is a later one, then the letter itself: repeating both changes nothing."""
    first = asdict(letter)
    position = first.pop("position")
    del first["history"]
    first["headers"] = [list(header) for header in letter.headers]
    latest = {name: first.pop(name) for name in ("reason", "code", "group")}
    # What is no number cannot be counted up: nothing else would be kept with it.
    earlier = {"_id": position, "last_seen": {"$lt": letter.last_seen}, "attempts": {"$gte": 0}}
    return [
        UpdateOne(earlier, {"$set": {"last_seen": letter.last_seen}, "$inc": {"attempts": 1}}),
        UpdateOne({"_id": position}, {"$setOnInsert": first, "$set": latest}, upsert=True),
    ]


def _counted() -> mongo.Document:
    names = get_args(dead_letters.LetterState)
    states = {name: {"$sum": {"$cond": [{"$eq": ["$state", name]}, 1, 0]}} for name in names}
    seen = {"first_seen": {"$min": "$first_seen"}, "last_seen": {"$max": "$last_seen"}}
    return {"_id": "$group", **states, "reason": {"$min": "$reason"}, **seen}


def _recorded(document: mongo.Document) -> dead_letters.RecordedEntry:
    entry = restored(HistoryEntry, document["_id"], document.copy)
    return dead_letters.HistoryCursor(entry.at, document["position"], document["number"]), entry


def _letter(document: mongo.Document) -> DeadLetter:
    return restored(DeadLetter, document["_id"], lambda: {**document, "position": document["_id"]})
