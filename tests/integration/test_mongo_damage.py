"""What something else has written into MongoDB fails alone, as an error of the domain, and by its name."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from random import uniform
from time import monotonic
from typing import Any, Final
from uuid import UUID, uuid4

import pymongo
import pytest
from bson.datetime_ms import DatetimeMS
from msgspec.structs import replace
from pymongo.database import Database
from support.mongo import MongoStore, a_mongo_store, mongo_charges, mongo_dead_letters

from clinic.adapters.memory.transport import MemoryLog, MemoryPublisher
from clinic.domain.appointment.ports import AppointmentFilter
from clinic.domain.errors import Unavailable, Unreadable
from clinic.domain.financial.model import Charge
from clinic.domain.messaging.dead_letters import DeadLetterFilter
from clinic.domain.messaging.messages import unreadable
from clinic.domain.messaging.relay import Relay
from clinic.domain.messaging.retry import bisect_refused
from clinic.testing.builders import (
    ONE_O_CLOCK,
    TWO_O_CLOCK,
    RecordedTelemetry,
    a_charge,
    a_history_entry,
    a_letter,
    an_appointment,
    now,
    running,
)
from clinic.testing.outbox import LONG, saved

Document = dict[str, Any]


@pytest.fixture
def database(mongo_standalone: str) -> Iterator[Database[Document]]:
    """Of this test's own, for somebody who knows nothing of the stores."""
    client: pymongo.MongoClient[Document]
    with pymongo.MongoClient(mongo_standalone, uuidRepresentation="standard") as client:
        yield client[f"test-{uuid4().hex}"]


BESIDE: Final[Sequence[Document]] = [
    {"lease": 5},
    {"lease": ["mine"]},
    {"lease": "mine"},
    {"lease.since": "yesterday"},
    {"lease.since": None},
    {"lease.since": DatetimeMS(2**62)},
    {"lease.since": DatetimeMS(-(2**62))},
    {"lease.seconds": "long"},
    {"lease.seconds": float("nan")},
    {"lease.seconds": {}},
    {"published": 5},
    {"published": []},
    {"saved_at": 5, "outbox.0.saved_at": "yesterday"},
]


def a_relay(store: MongoStore, log: MemoryLog, telemetry: RecordedTelemetry) -> Relay:
    return Relay(store, MemoryPublisher(log, now), asyncio.sleep, telemetry, monotonic, uniform)


async def test_whatever_stands_beside_an_event_it_is_published_and_confirmed(
    mongo_standalone: str, database: Database[Document]
) -> None:
    appointments, telemetry, log = database["appointments"], RecordedTelemetry(), MemoryLog()
    async with a_mongo_store(mongo_standalone, database.name, LONG) as store:
        messages = [await saved(store) for _ in BESIDE]
    appointments.update_many({}, {"$set": {"lease": {"since": ONE_O_CLOCK, "seconds": 1.0}}})
    for message, change in zip(messages, BESIDE, strict=True):
        appointments.update_one({"_id": UUID(message.subject)}, {"$set": change})
    async with a_mongo_store(mongo_standalone, database.name, LONG) as store:
        assert await store.oldest() is not None
        async with running(a_relay(store, log, telemetry).run()), asyncio.timeout(20):
            await telemetry.seen("published", len(BESIDE))
        assert await store.oldest() is None
    assert sorted(message.id for _, message in log.entries) == sorted(message.id for message in messages)


async def test_an_appointment_with_an_odd_id_stops_neither_the_relay_nor_others(
    mongo_standalone: str, database: Database[Document]
) -> None:
    telemetry = RecordedTelemetry()
    async with a_mongo_store(mongo_standalone, database.name, LONG) as store:
        message = await saved(store)
        document = database["appointments"].find_one_and_update({}, {"$unset": {"lease": True}}) or {}
        database["appointments"].insert_one({**document, "_id": "odd", "lease": None})
    async with a_mongo_store(mongo_standalone, database.name, LONG) as store:
        async with running((relay := a_relay(store, MemoryLog(), telemetry)).run()), asyncio.timeout(20):
            await telemetry.seen("cannot be published")
            await saved(store)
            await telemetry.seen("published", 2)
            assert message.id in (relay.problem or "")
        assert await store.status(unreadable(message.id, "odd")) is not None


@pytest.mark.parametrize("change", [{"published": 5}, {"published": {"1": 5}}])
async def test_a_publication_that_cannot_be_read_is_not_known(
    mongo_standalone: str, database: Database[Document], change: Document
) -> None:
    async with a_mongo_store(mongo_standalone, database.name, LONG) as store:
        message = await saved(store)
        database["appointments"].update_one({}, {"$set": {"outbox": [], **change}})
        with pytest.raises(Unavailable):
            await store.status(replace(message, id="1"))


APPOINTMENTS: Final[Sequence[Document]] = [
    {"physician_id": "anna"},
    {"price": 5},
    {"start": "noon"},
    {"end": DatetimeMS(2**60)},
    {"version": "last"},
]


async def test_an_appointment_or_reservation_that_cannot_be_read_fails_alone(
    mongo_standalone: str, database: Database[Document]
) -> None:
    async with a_mongo_store(mongo_standalone, database.name, LONG) as store:
        keys = [bytes([number]) for number in range(len(APPOINTMENTS) + 1)]
        added = [await store.add(an_appointment(), once=key) for key in keys]
        for each, change in zip(added, APPOINTMENTS, strict=False):
            database["appointments"].update_one({"_id": each.id}, {"$set": change})
            database["idempotency_keys"].update_one({"id": each.id}, {"$set": change})

        gotten = await asyncio.gather(*(store.get(each.id) for each in added), return_exceptions=True)
        repeated = await asyncio.gather(
            *(store.add(an_appointment(), once=key) for key in keys), return_exceptions=True
        )

        for *failures, sound in (gotten, repeated):
            assert sound == added[-1]
            assert [type(failure) for failure in failures] == [Unreadable] * len(APPOINTMENTS)
        assert str(added[0].id) in str(gotten[0])
        with pytest.raises(Unreadable):
            await store.page(AppointmentFilter(), 10)


CHARGES: Final[Sequence[Document]] = [
    {"hours": "many"},
    {"hours": "1/0"},
    {"total": "much"},
    {"origin": "somewhere"},
    {"charged_at": DatetimeMS(2**60)},
]


async def test_a_charge_that_cannot_be_read_fails_alone(
    mongo_standalone: str, database: Database[Document]
) -> None:
    async with mongo_charges(mongo_standalone, database.name) as store:
        damaged, sound, new = [a_charge() for _ in CHARGES], a_charge(), a_charge()
        await store.add([*damaged, sound])
        for each, change in zip(damaged, CHARGES, strict=True):
            database["charges"].update_one({"_id": each.appointment_id}, {"$set": change})

        async def add(batch: Sequence[Charge]) -> None:
            await store.add(batch)

        refused = await bisect_refused([*damaged, sound, new], add)
        *failures, one, other = await asyncio.gather(
            *(store.wait_for(each.appointment_id, 5) for each in [*damaged, sound, new]),
            return_exceptions=True,
        )

        assert [charge for charge, _ in refused] == damaged
        assert [one, other] == [sound, new]
        assert [type(failure) for failure in failures] == [Unreadable] * len(CHARGES)


@pytest.mark.parametrize(
    ("letter", "entry"),
    [
        ({"attempts": "many"}, {}),
        ({"headers": 5}, {}),
        ({"last_seen": "noon"}, {}),
        ({"entries": "many"}, {}),
        ({"state": "lost"}, {}),
        ({}, {"at": "noon"}),
    ],
)
async def test_a_dead_letter_that_cannot_be_read_keeps_none_from_being_kept_and_listed(
    mongo_standalone: str, database: Database[Document], letter: Document, entry: Document
) -> None:
    async with mongo_dead_letters(mongo_standalone, database.name) as letters:
        damaged, sound = (a_letter(position=f"log/{number}", group=str(number)) for number in (1, 2))
        await letters.add([damaged])
        await letters.record(damaged, a_history_entry())
        database["dead_letters"].update_one({}, {"$set": {"more": 1, **letter}})
        database["dead_letter_history"].update_one({}, {"$set": {"more": 1, **entry}})
        for odd in ({}, {"position": 5, "number": 0}, {"position": "log/1", "number": "last"}):
            database["dead_letter_history"].insert_one({**odd, "at": TWO_O_CLOCK})

        await letters.add([replace(damaged, last_seen=damaged.last_seen + timedelta(hours=1)), sound])

        assert await letters.get("log/2") == sound
        assert list(await letters.page(DeadLetterFilter(group="2"), 10)) == [sound.listed()]
        with pytest.raises(Unreadable, match="log/1"):
            await letters.get("log/1")
