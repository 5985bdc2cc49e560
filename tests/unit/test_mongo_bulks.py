"""What a bulk of MongoDB's driver says it has done, taken at its figures and not at its word."""

import pytest
from pymongo import InsertOne, UpdateOne

from clinic.adapters.mongo.database import is_whole

DONE = {"nInserted": 1, "nMatched": 1, "nUpserted": 0, "writeErrors": [], "writeConcernErrors": []}
BOTH = [InsertOne({"_id": 1}), UpdateOne({"_id": 2}, {"$set": {"end": 3}}, upsert=True)]


@pytest.mark.parametrize(
    "said",
    [
        DONE,
        DONE | {"nMatched": 0, "nUpserted": 1},
        DONE | {"nMatched": 0, "writeErrors": [{"index": 1, "code": 11000}]},
    ],
)
def test_a_bulk_that_accounts_for_each_of_its_writes_is_whole(said: dict[str, object]) -> None:
    assert is_whole(said, BOTH)


@pytest.mark.parametrize("said", [DONE | {"nMatched": 0}, DONE | {"writeConcernErrors": [{"code": 64}]}])
def test_a_success_that_counts_fewer_writes_than_were_asked_for_is_none(said: dict[str, object]) -> None:
    """PyMongo 4.20 leaves out the updates of a bulk with inserts where its first connection could not be had:
    its retry runs the first kind alone, and reports no error.
    """
    assert not is_whole(said, BOTH)
