"""Where a promise is easily broken at its edge: each of these once was."""

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec.structs import replace

from clinic.adapters import cloudevents
from clinic.adapters.leases import Leases
from clinic.adapters.memory.charges import MemoryCharges
from clinic.adapters.sqlite.appointments import SqliteAppointments
from clinic.adapters.sqlite.charges import SqliteCharges
from clinic.adapters.sqlite.file import SqliteFile, scripts
from clinic.adapters.sqlite.transport import SqlitePublisher, SqliteSubscription
from clinic.domain.errors import Unavailable, Unreadable
from clinic.domain.events import from_message
from clinic.domain.messaging.messages import Message
from clinic.domain.money import Money
from clinic.testing.builders import a_charge, a_message, an_appointment, now, opened
from clinic.testing.outbox import LONG, finished, hand_over


def test_an_amount_with_an_enormous_exponent_cannot_be_read() -> None:
    with pytest.raises(Unreadable):
        Money("1e999999")


def test_an_event_with_an_enormous_price_is_unreadable() -> None:
    message = a_message()
    assert message.data
    with pytest.raises(Unreadable):
        from_message(replace(message, data=message.data.replace(b'"200.00"', b'"1e999999"')))


def test_a_fraction_of_a_cent_behind_many_digits_cannot_be_read() -> None:
    with pytest.raises(Unreadable):
        Money("200.00000000000000000000000000001")


async def test_waiting_for_a_charge_raises_unavailable_when_the_store_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await SqliteCharges(SqliteFile(tmp_path / "financial.db", *scripts("financial"))).wait_for(
            uuid4(), 0.05
        )


async def test_a_charge_that_is_there_is_found_however_short_the_wait(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "financial.db", *scripts("financial"))) as file:
        charges, charge = SqliteCharges(file), a_charge()
        await charges.add([charge])
        assert await charges.wait_for(charge.appointment_id, 0) == charge


async def test_adding_the_very_same_charge_again_does_not_call_it_new() -> None:
    charges, charge = MemoryCharges(), a_charge()
    await charges.add([charge])
    assert (await charges.add([charge])).new == []


async def test_an_expired_lease_of_a_confirmed_event_does_not_keep_claim_busy() -> None:
    time = [1000.0]
    looks = [0]
    messages = [a_message()]

    async def unpublished(limit: int) -> Sequence[tuple[datetime, Message]]:
        looks[0] += 1
        if looks[0] > 10:
            raise ZeroDivisionError
        return [(now(), message) for message in messages[:limit]]

    leases = Leases(3600, lambda: time[0])
    await leases.claim(unpublished, 1)
    messages.clear()
    time[0] += 4000
    claim = asyncio.create_task(leases.claim(unpublished, 1))
    await asyncio.wait([claim], timeout=0.2)
    claim.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claim


async def test_a_save_whose_caller_is_cancelled_wakes_the_relay_when_it_is_kept(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "appointment.db", *scripts("appointment"))) as file:
        store, go_on = SqliteAppointments(file, now, LONG), threading.Event()
        await store.add(started := an_appointment())
        claim = asyncio.create_task(hand_over(store, 1))
        blocking = asyncio.create_task(file.write(lambda _: go_on.wait(10)))
        await asyncio.sleep(0)
        save = asyncio.create_task(store.save(*finished(started)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        save.cancel()
        await asyncio.wait([save])
        await store.oldest()
        go_on.set()
        await blocking
        async with asyncio.timeout(1):
            assert [message.subject for message in await claim] == [str(started.id)]


async def test_save_keeps_the_new_state_or_does_not_answer_that_it_did(tmp_path: Path) -> None:
    async with opened(SqliteFile(tmp_path / "appointment.db", *scripts("appointment"))) as file:
        store = SqliteAppointments(file, now, LONG)
        await store.add(started := an_appointment())
        saved = await store.save(replace(started, price=Money("1.00")))
        assert await store.get(started.id) == saved


async def test_a_file_that_is_being_closed_does_not_answer(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "notes.db", "CREATE TABLE notes (note TEXT)")
    begun = threading.Event()
    go_on = threading.Event()

    def slow(_: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait(10)

    await file.open()
    write = asyncio.create_task(file.write(slow))
    await asyncio.to_thread(begun.wait, 10)
    closing = asyncio.create_task(file.close())
    try:
        await asyncio.to_thread(lambda: None)
        await asyncio.to_thread(lambda: None)
        with pytest.raises(Unavailable):
            await file.read(lambda connection: connection.execute("SELECT 1").fetchone())
    finally:
        go_on.set()
        await write
        await closing


async def test_acknowledging_an_older_batch_late_does_not_take_the_group_back(tmp_path: Path) -> None:
    place = SqliteFile(tmp_path / "events.group.db", *scripts("group"))
    subscription = SqliteSubscription(tmp_path / "events.db", place, now, asyncio.sleep)
    async with opened(SqliteFile(tmp_path / "events.db", *scripts("events"))) as log, opened(subscription):
        publisher = SqlitePublisher(log, now)
        await publisher.publish([a_message()])
        older = await subscription.receive()
        await publisher.publish([a_message()])
        newer = await subscription.receive()
        await subscription.acknowledge(newer)
        await subscription.acknowledge(older)
        await publisher.publish([sentinel := a_message()])
        assert [each.message for each in await subscription.receive()] == [sentinel]


def test_a_foreign_time_without_a_zone_is_not_naive() -> None:
    found = cloudevents.message(None, [("ce_time", b"2020-12-01T13:00:00")], None).time
    assert found is None or found.tzinfo is not None
