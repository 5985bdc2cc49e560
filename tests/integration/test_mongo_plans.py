"""No list over HTTP and no work of the outbox reads a whole collection, or sorts what it has found: the
server's profiler says so.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import pymongo
import pytest
from msgspec.structs import replace
from support.mongo import MongoStore, a_mongo_store, mongo_charges, mongo_dead_letters

from clinic.adapters.mongo.charges import MongoCharges
from clinic.domain.appointment import ports as appointment
from clinic.domain.appointment.model import Appointment
from clinic.domain.financial import ports as financial
from clinic.domain.financial.model import Charge, ChargeCursor
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetterFilter, LetterState
from clinic.domain.messaging.messages import PublishResult
from clinic.testing.builders import (
    TWO_O_CLOCK,
    a_charge,
    a_history_entry,
    a_letter,
    a_message,
    an_appointment,
    now,
)

Document = dict[str, Any]

LEASE = 1.0
HISTORY = 500
PAGE = 11
BUSY_PHYSICIAN = uuid4()
LOYAL_PATIENT = uuid4()
QUIET_PATIENT = uuid4()


def somebody(default: UUID, number: int) -> UUID:
    """Half of the history is of one person."""
    return default if number % 2 else uuid4()


class Profiler:
    """What the server did for a database, and by which plans."""

    def __init__(self, url: str, name: str) -> None:
        self._client: pymongo.MongoClient[Document] = pymongo.MongoClient(url)
        self._database = self._client[name]

    @contextmanager
    def watching(self, collection: str) -> Iterator[list[Document]]:
        """Inside, everything is profiled; afterwards the list holds what was planned on this collection."""
        found: list[Document] = []
        self._database.command("profile", 2)
        try:
            yield found
        finally:
            self._database.command("profile", 0)
            about = {"ns": f"{self._database.name}.{collection}", "planSummary": {"$exists": True}}
            found += self._database["system.profile"].find(about)
            self._database["system.profile"].drop()

    def indexes(self, collection: str) -> list[str]:
        """Their names, that of the ids among them."""
        return list(self._database[collection].index_information())

    def save_all_at(self, moment: datetime) -> None:
        """As where many are saved in one millisecond."""
        self._database["appointments"].update_many({}, {"$set": {"saved_at": moment}})

    def close(self) -> None:
        self._client.drop_database(self._database.name)
        self._client.close()


ENDED = ((None, None), (True, None), (False, None), (False, TWO_O_CLOCK))
"""Finished or not, and what an open one started before."""


def dear(plans: list[Document]) -> list[Document]:
    """Those that read a whole collection or sort what they have found."""
    assert plans, "nothing was profiled"
    return [each for each in plans if "COLLSCAN" in each["planSummary"] or each.get("hasSortStage")]


@pytest.fixture
def name() -> str:
    return f"test-{uuid4().hex}"


@pytest.fixture
def profiler(mongo_standalone: str, name: str) -> Iterator[Profiler]:
    profiler = Profiler(mongo_standalone, name)
    yield profiler
    profiler.close()


async def added(store: MongoStore, count: int) -> list[Appointment]:
    made = [
        an_appointment(
            physician_id=somebody(BUSY_PHYSICIAN, number), patient_id=somebody(LOYAL_PATIENT, number // 2)
        )
        for number in range(count)
    ]
    await asyncio.gather(*(store.add(each) for each in made))
    return made


async def finished(store: MongoStore, some: list[Appointment]) -> None:
    """Each with an event that nobody has published yet."""
    await asyncio.gather(
        *(
            store.save(replace(each, end=TWO_O_CLOCK), a_message(subject=str(each.id), key=str(each.id)))
            for each in some
        )
    )


async def published(store: MongoStore, count: int) -> None:
    while count:
        claimed = await store.claim(100)
        await store.confirm([PublishResult(each.message, "log/1", now()) for each in claimed])
        count -= len(claimed)


@pytest.fixture
async def appointments(mongo_standalone: str, name: str) -> AsyncIterator[MongoStore]:
    """A history of appointments, most of them finished and published."""
    async with a_mongo_store(mongo_standalone, name, LEASE) as store:
        made = await added(store, HISTORY)
        some = made[: HISTORY - 50]
        await finished(store, some)
        await published(store, len(some))
        yield store


async def test_every_list_of_appointments_comes_in_the_order_of_an_index(
    appointments: MongoStore, profiler: Profiler
) -> None:
    (middle,) = (await appointments.page(appointment.AppointmentFilter(), HISTORY // 2))[-1:]
    shapes = list(product((None, BUSY_PHYSICIAN), (None, LOYAL_PATIENT), ENDED, (None, middle.id)))

    with profiler.watching("appointments") as plans:
        for physician, patient, (is_finished, before), after in shapes:
            await appointments.page(
                appointment.AppointmentFilter(physician, patient, is_finished, before), PAGE, after
            )

    assert dear(plans) == []
    assert len(plans) >= len(shapes) == 32


async def test_no_list_of_appointments_costs_more_with_a_longer_history(
    appointments: MongoStore, profiler: Profiler
) -> None:
    (middle,) = (await appointments.page(appointment.AppointmentFilter(), HISTORY // 2))[-1:]
    await appointments.add(an_appointment(patient_id=QUIET_PATIENT))
    shapes = list(product((None, BUSY_PHYSICIAN), (None, QUIET_PATIENT), ENDED, (None, middle.id)))

    async def costs() -> list[int]:
        with profiler.watching("appointments") as plans:
            for physician, patient, (is_finished, before), after in shapes:
                matching = appointment.AppointmentFilter(physician, patient, is_finished, before)
                await appointments.page(matching, PAGE, after)
        # A sweep of the outbox may look beside them for what is not published.
        lists = [each for each in plans if each["command"].get("sort") == {"_id": -1}]
        return [each["keysExamined"] + each["docsExamined"] for each in lists]

    short = await costs()
    history = (an_appointment(physician_id=BUSY_PHYSICIAN, end=TWO_O_CLOCK) for _ in range(3 * HISTORY))
    await asyncio.gather(*(appointments.add(each) for each in history))

    assert len(short) == len(shapes) == 32
    assert [(a, b) for a, b in zip(short, await costs(), strict=True) if b > 1.2 * a + 20] == []


async def test_no_list_of_charges_costs_more_with_a_longer_history(
    mongo_standalone: str, name: str, profiler: Profiler
) -> None:
    def later(seconds: int) -> datetime:
        return TWO_O_CLOCK + timedelta(seconds=seconds)

    times = (None, later(20)), (None, later(60)), (None, ChargeCursor(later(50), uuid4()))
    shapes = list(product((None, BUSY_PHYSICIAN), (None, QUIET_PATIENT), *times))

    async def costs(charges: MongoCharges) -> list[int]:
        with profiler.watching("charges") as plans:
            for physician, patient, charged_from, charged_to, after in shapes:
                matching = financial.ChargeFilter(physician, patient, charged_from, charged_to)
                await charges.page(matching, PAGE, after)
        return [each["keysExamined"] + each["docsExamined"] for each in plans]

    async with mongo_charges(mongo_standalone, name) as charges:
        await charges.add([_charge(number) for number in range(HISTORY)])
        await charges.add([a_charge(patient_id=QUIET_PATIENT, charged_at=later(50))])
        short = await costs(charges)
        more = range(HISTORY, 4 * HISTORY)
        await charges.add([a_charge(physician_id=BUSY_PHYSICIAN, charged_at=later(each)) for each in more])
        long = await costs(charges)

    assert len(short) == len(shapes) == 32
    assert [(a, b) for a, b in zip(short, long, strict=True) if b > 1.2 * a + 20] == []


async def test_every_list_of_charges_comes_in_the_order_of_an_index(
    mongo_standalone: str, name: str, profiler: Profiler
) -> None:
    async with mongo_charges(mongo_standalone, name) as charges:
        made = [_charge(number) for number in range(HISTORY)]
        await charges.add(made)
        middle = made[HISTORY // 2].charged_at
        place = ChargeCursor(middle, made[HISTORY // 2].appointment_id)
        times = (None, middle - timedelta(seconds=50)), (None, middle + timedelta(seconds=50))
        shapes = list(product((None, BUSY_PHYSICIAN), (None, LOYAL_PATIENT), *times, (None, place)))

        with profiler.watching("charges") as plans:
            for physician, patient, charged_from, charged_to, after in shapes:
                await charges.page(
                    financial.ChargeFilter(physician, patient, charged_from, charged_to), PAGE, after
                )

    assert dear(plans) == []
    assert len(plans) >= len(shapes) == 32


async def test_every_list_of_dead_letters_comes_in_the_order_of_an_index(
    mongo_standalone: str, name: str, profiler: Profiler
) -> None:
    async with mongo_dead_letters(mongo_standalone, name) as letters:
        await letters.add([_letter(number) for number in range(HISTORY)])
        shapes = list(
            product(
                (None, "waiting", "discarded"),
                (None, "group-1"),
                (None, "about-1"),
                ("", f"log/{HISTORY // 2:04}"),
            )
        )

        with profiler.watching("dead_letters") as plans:
            for state, group, about, after in shapes:
                await letters.page(DeadLetterFilter(state, group, about), PAGE, after)  # type: ignore[arg-type]

    assert dear(plans) == []
    pages = [each for each in plans if "sort" in each["command"]]  # the rest completes what was begun last
    assert len(pages) == len(shapes) == 24
    alone = [each["docsExamined"] for each, shape in zip(pages, shapes, strict=True) if shape[2] is None]
    assert max(alone) <= PAGE + 1


async def test_the_groups_of_dead_letters_are_counted_without_reading_a_letter(
    mongo_standalone: str, name: str, profiler: Profiler
) -> None:
    async with mongo_dead_letters(mongo_standalone, name) as letters:
        await letters.add([_letter(number) for number in range(HISTORY)])
        with profiler.watching("dead_letters") as plans:
            assert sum(each.waiting for each in await letters.groups()) == HISTORY // 2
        indexes = profiler.indexes("dead_letters")

    assert dear(plans) == []
    assert max(each["docsExamined"] for each in plans) == 0
    assert len(indexes) == 1 + 4


async def test_the_history_of_all_letters_comes_in_the_order_of_an_index(
    mongo_standalone: str, name: str, profiler: Profiler
) -> None:
    async with mongo_dead_letters(mongo_standalone, name) as letters:
        letter = _letter(1)
        await letters.add([letter])
        for number in range(3 * PAGE):
            entry = a_history_entry(event="failed again", at=TWO_O_CLOCK + timedelta(seconds=number))
            await letters.record(letter, entry)
            letter = letter.with_entry(entry)
        with profiler.watching("dead_letter_history") as plans:
            newest = await letters.history(PAGE)
            older = await letters.history(PAGE, newest[-1][0])

    assert [cursor.number for cursor, _ in (*newest, *older)] == [*range(3 * PAGE)][::-1][: 2 * PAGE]
    assert dear(plans) == []
    assert max(each["docsExamined"] for each in plans) <= PAGE + 1


def _letter(number: int) -> DeadLetter:
    state: LetterState = "waiting" if number % 2 else "replayed"
    return a_letter(
        position=f"log/{number:04}", state=state, group=f"group-{number % 3}", about=f"about-{number % 5}"
    )


async def test_the_charges_of_an_audit_come_in_the_order_of_their_ids(
    mongo_standalone: str, name: str, profiler: Profiler
) -> None:
    async with mongo_charges(mongo_standalone, name) as charges:
        await charges.add(made := [_charge(number) for number in range(HISTORY)])
        with profiler.watching("charges") as plans:
            for after in (None, made[0].appointment_id):
                await charges.by_appointment(PAGE, after)

    assert dear(plans) == []
    assert max(each["docsExamined"] for each in plans) <= PAGE


async def test_the_status_of_an_event_is_found_by_its_appointments_id(
    appointments: MongoStore, profiler: Profiler
) -> None:
    (listed,) = await appointments.page(appointment.AppointmentFilter(finished=True), 1)

    with profiler.watching("appointments") as plans:
        await appointments.status(a_message(subject=str(listed.id)))

    assert dear(plans) == []
    assert max(each["docsExamined"] for each in plans) == 1


def _charge(number: int) -> Charge:
    physician, patient = somebody(BUSY_PHYSICIAN, number), somebody(LOYAL_PATIENT, number // 2)
    moment = TWO_O_CLOCK + timedelta(seconds=number // 5)
    return a_charge(appointment_id=uuid4(), physician_id=physician, patient_id=patient, charged_at=moment)


async def test_what_a_dead_process_left_is_found_without_reading_the_history(
    appointments: MongoStore, mongo_standalone: str, name: str, profiler: Profiler
) -> None:
    left = await added(appointments, 7)
    await finished(appointments, left)

    async with a_mongo_store(mongo_standalone, name, LEASE) as another:
        with profiler.watching("appointments") as plans:
            taken = await another.claim(100)
            await another.confirm([PublishResult(each.message, "log/1", now()) for each in taken])

    assert {each.message.subject for each in taken} == {str(each.id) for each in left}
    assert dear(plans) == []
    assert max(each["docsExamined"] for each in plans) <= len(left)


async def test_the_age_of_the_oldest_event_reads_one_document_at_any_backlog(
    appointments: MongoStore, profiler: Profiler
) -> None:
    await finished(appointments, await added(appointments, 100))

    with profiler.watching("appointments") as plans:
        assert await appointments.oldest() is not None

    assert dear(plans) == []
    assert max(each["docsExamined"] for each in plans) == 1


@pytest.mark.parametrize("at_once", [False, True])
async def test_the_list_of_what_waits_reads_a_page_of_documents_at_any_backlog(
    appointments: MongoStore, profiler: Profiler, at_once: bool
) -> None:
    await finished(appointments, await added(appointments, 200))
    if at_once:
        profiler.save_all_at(TWO_O_CLOCK)
    places = await appointments.waiting(200)
    shapes = list(product((None, places[150][0], now()), (None, places[100])))

    with profiler.watching("appointments") as plans:
        for before, after in shapes:
            await appointments.waiting(PAGE, before, after)

    assert dear(plans) == []
    assert len(plans) >= len(shapes) == 6
    assert max(each["docsExamined"] for each in plans) <= PAGE + 1


async def test_starting_and_finishing_find_an_appointment_by_its_id(
    appointments: MongoStore, profiler: Profiler
) -> None:
    with profiler.watching("appointments") as plans:
        made = await added(appointments, 5)
        await finished(appointments, [await appointments.get(each.id) for each in made])
        await published(appointments, 5)

    assert dear(plans) == []
    assert max(each.get("docsExamined", 0) for each in plans) <= 5
