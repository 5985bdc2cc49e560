"""Charges in MongoDB, each under its appointment's id."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Final
from uuid import UUID

from msgspec.structs import asdict
from pymongo import ASCENDING, DESCENDING, IndexModel

from clinic.adapters.charge_waiters import ChargeLookup
from clinic.adapters.mongo import database as mongo
from clinic.adapters.stored import restored
from clinic.domain.financial import ports as financial
from clinic.domain.financial.model import Charge, ChargeCursor

BY_TIME: Final = [("charged_at", ASCENDING), ("_id", ASCENDING)]
CHARGES: Final = mongo.CollectionSchema(
    "charges",
    IndexModel(BY_TIME),
    IndexModel([("physician_id", ASCENDING), *BY_TIME]),
    IndexModel([("patient_id", ASCENDING), *BY_TIME]),
)


class MongoCharges(ChargeLookup):
    """Charges, in the collection `charges`."""

    def __init__(self, database: mongo.MongoDatabase) -> None:
        super().__init__()
        self._database = database

    async def check(self) -> None:
        await self._database.check()

    async def add(self, charges: Sequence[Charge]) -> financial.AddResult:
        if not charges:
            return financial.AddResult([], [])
        known = await mongo.insert_new(self._documents, [_charge_document(charge) for charge in charges])
        existing = await self._find([charges[index].appointment_id for index in known]) if known else []
        new = [charge for index, charge in enumerate(charges) if index not in known]
        added = financial.AddResult(new, list(existing))
        self._waiters.notify(added)
        return added

    async def page(
        self, matching: financial.ChargeFilter, limit: int, after: ChargeCursor | None = None
    ) -> Sequence[Charge]:
        last = after and after.charged_at
        bounds = mongo.given(**{"$gte": matching.charged_from, "$lt": matching.charged_to, "$lte": last})
        people = {"physician_id": matching.physician_id, "patient_id": matching.patient_id}
        query = mongo.given(**people, charged_at=bounds or None)
        if after is not None:
            query["$or"] = [{"charged_at": {"$lt": after.charged_at}}, {"_id": {"$lt": after.appointment_id}}]
        latest_first = [("charged_at", DESCENDING), ("_id", DESCENDING)]
        found = self._documents.find(query).sort(latest_first).limit(limit)
        if matching.patient_id is not None:  # of both, a patient has fewer charges than a physician
            found = found.hint([("patient_id", ASCENDING), *BY_TIME])
        return await self._database.fetch(found, _charge)

    async def by_appointment(self, limit: int, after: UUID | None = None) -> Sequence[Charge]:
        query = mongo.given(_id=after and {"$lt": after})
        found = self._documents.find(query).sort("_id", DESCENDING).limit(limit)
        return await self._database.fetch(found, _charge)

    async def count(self) -> int:
        with mongo.translate_errors():
            return await self._documents.estimated_document_count()

    @property
    def _documents(self) -> mongo.Collection:
        return self._database.collection("charges")

    async def _find(self, ids: Sequence[UUID]) -> Sequence[Charge]:
        found = self._documents.find({"_id": {"$in": list(ids)}})
        return await self._database.fetch(found, _charge)


def _charge_document(charge: Charge) -> mongo.Document:
    amounts = {"price": mongo.decimal(charge.price), "total": mongo.decimal(charge.total)}
    document = asdict(charge) | amounts | {"hours": str(charge.hours), "origin": asdict(charge.origin)}
    return {"_id": document.pop("appointment_id"), **document}


def _charge(document: mongo.Document) -> Charge:
    def fields() -> mongo.Document:
        amounts = {name: mongo.money(document[name]) for name in ("price", "total")}
        hours = Fraction(document["hours"])
        return {**document, **amounts, "hours": hours, "appointment_id": document["_id"]}

    return restored(Charge, document["_id"], fields)
