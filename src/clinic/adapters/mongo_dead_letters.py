"""Dead letters in MongoDB, each under its position."""

from collections.abc import Sequence

from msgspec.structs import asdict
from pymongo import ASCENDING, UpdateOne

from clinic.adapters.mongo_database import Collection, Document, MongoDatabase, answered
from clinic.domain.messaging import DeadLetter, DeadLetters


class MongoDeadLetters(DeadLetters):
    """Dead letters, in the collection `dead_letters`."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    async def keep(self, letters: Sequence[DeadLetter]) -> None:
        with answered():
            await self._documents.bulk_write([_keeping(each) for each in letters])

    async def page(self, limit: int, after: str = "") -> Sequence[DeadLetter]:
        with answered():
            found = self._documents.find({"_id": {"$gt": after}}).sort("_id", ASCENDING).limit(limit)
            return [_letter(document) async for document in found]

    @property
    def _documents(self) -> Collection:
        return self._database.collection("dead_letters")


def _keeping(letter: DeadLetter) -> UpdateOne:
    first = asdict(letter)
    again = {name: first.pop(name) for name in ("reason", "last_seen")}
    attempts = first.pop("attempts")
    position = first.pop("position")
    first["headers"] = [list(header) for header in letter.headers]
    return UpdateOne({"_id": position}, {"$setOnInsert": first, "$set": again, "$inc": {"attempts": attempts}}, upsert=True)


def _letter(document: Document) -> DeadLetter:
    position = document.pop("_id")
    headers = tuple((name, content) for name, content in document.pop("headers"))
    return DeadLetter(position=position, headers=headers, **document)
