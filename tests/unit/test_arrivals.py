"""Many who wait for a charge, one look-up for all of them."""

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest
from support.builders import a_charge

from clinic.adapters.charge_waiters import MAX_WAITERS, ChargeWaiters
from clinic.domain.errors import NotFound, Unavailable
from clinic.domain.financial.model import Charge
from clinic.domain.financial.ports import AddResult


class Store:
    """What others have charged; keeps in mind what it was asked for."""

    def __init__(self) -> None:
        self.charges: list[Charge] = []
        self.asked: list[set[UUID]] = []
        self.weather = 0
        self.was_asked = asyncio.Event()

    async def find(self, ids: Sequence[UUID]) -> Sequence[Charge]:
        self.asked.append(set(ids))
        self.was_asked.set()
        if self.weather:
            self.weather -= 1
            raise Unavailable("it does not answer")
        return [each for each in self.charges if each.appointment_id in ids]


async def test_a_charge_made_here_wakes_its_waiters_without_a_look_up() -> None:
    store = Store()
    arrivals, charge = ChargeWaiters(store.find), a_charge()
    waiting = asyncio.create_task(arrivals.wait(charge.appointment_id, 10))
    await store.was_asked.wait()
    arrivals.notify(AddResult([charge], []))
    assert await waiting == charge
    assert len(store.asked) == 1


async def test_a_charge_that_stands_wakes_its_waiters_too() -> None:
    store = Store()
    arrivals, charge = ChargeWaiters(store.find), a_charge()
    waiting = asyncio.create_task(arrivals.wait(charge.appointment_id, 10))
    await store.was_asked.wait()
    arrivals.notify(AddResult([], [charge]))
    assert await waiting == charge


async def test_all_waiters_share_one_look_up() -> None:
    store = Store()
    arrivals = ChargeWaiters(store.find)
    charges = [a_charge() for _ in range(20)]
    waiters = [asyncio.create_task(arrivals.wait(each.appointment_id, 10)) for each in charges]
    await store.was_asked.wait()
    store.charges = charges
    assert await asyncio.gather(*waiters) == charges
    assert store.asked == [{each.appointment_id for each in charges}] * 2


async def test_a_store_that_does_not_answer_for_a_while_loses_no_waiter() -> None:
    store = Store()
    store.weather, store.charges = 2, [a_charge()]
    assert await ChargeWaiters(store.find).wait(store.charges[0].appointment_id, 10) == store.charges[0]


async def test_waiting_costs_nothing_while_nobody_waits() -> None:
    store = Store()
    arrivals = ChargeWaiters(store.find)
    before = asyncio.all_tasks()
    with pytest.raises(NotFound):
        await arrivals.wait(uuid4(), 0.01)
    await asyncio.gather(
        *asyncio.all_tasks() - before, return_exceptions=True
    )  # the last look ends by itself
    asked = len(store.asked)
    arrivals.notify(AddResult([a_charge()], []))
    assert len(store.asked) == asked


async def test_a_waiter_that_is_cancelled_makes_room_and_leaves_others_alone() -> None:
    store = Store()
    arrivals, charge = ChargeWaiters(store.find), a_charge()
    waiters = [asyncio.create_task(arrivals.wait(charge.appointment_id, 10)) for _ in range(MAX_WAITERS)]
    await store.was_asked.wait()
    with pytest.raises(Unavailable):
        await arrivals.wait(charge.appointment_id, 10)
    waiters[0].cancel()
    await asyncio.wait(waiters[:1])
    waiters[0] = asyncio.create_task(arrivals.wait(charge.appointment_id, 10))
    await asyncio.sleep(0)
    arrivals.notify(AddResult([charge], []))
    assert await asyncio.gather(*waiters) == [charge] * MAX_WAITERS
