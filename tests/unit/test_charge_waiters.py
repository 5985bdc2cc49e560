"""Many requests wait for charges, and one look-up serves them all."""

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest

from clinic.adapters.charge_waiters import MAX_WAITERS, ChargeWaiters
from clinic.domain.errors import NotFound, Unavailable
from clinic.domain.financial.model import Charge
from clinic.domain.financial.ports import AddResult
from clinic.testing.builders import a_charge


class Store:
    """What others have charged; records what it was asked for."""

    def __init__(self) -> None:
        self.charges: list[Charge] = []
        self.asked: list[set[UUID]] = []
        self.failures: list[Exception] = []
        self.was_asked = asyncio.Event()

    async def find(self, ids: Sequence[UUID]) -> Sequence[Charge]:
        self.asked.append(set(ids))
        self.was_asked.set()
        if self.failures:
            raise self.failures.pop()
        return [each for each in self.charges if each.appointment_id in ids]


async def test_a_charge_made_here_wakes_its_waiters_without_a_look_up() -> None:
    store = Store()
    charge_waiters, charge = ChargeWaiters(store.find), a_charge()
    waiting = asyncio.create_task(charge_waiters.wait(charge.appointment_id, 10))
    await store.was_asked.wait()
    charge_waiters.notify(AddResult([charge], []))
    assert await waiting == charge
    assert len(store.asked) == 1


async def test_a_charge_that_existed_before_wakes_its_waiters_too() -> None:
    store = Store()
    charge_waiters, charge = ChargeWaiters(store.find), a_charge()
    waiting = asyncio.create_task(charge_waiters.wait(charge.appointment_id, 10))
    await store.was_asked.wait()
    charge_waiters.notify(AddResult([], [charge]))
    assert await waiting == charge


async def test_all_waiters_share_one_look_up() -> None:
    store = Store()
    charge_waiters = ChargeWaiters(store.find)
    charges = [a_charge() for _ in range(20)]
    waiters = [asyncio.create_task(charge_waiters.wait(each.appointment_id, 10)) for each in charges]
    await store.was_asked.wait()
    store.charges = charges
    assert await asyncio.gather(*waiters) == charges
    assert store.asked == [{each.appointment_id for each in charges}] * 2


async def test_a_store_that_does_not_answer_for_a_while_loses_no_waiter() -> None:
    store = Store()
    store.failures = [Unavailable("it does not answer")] * 2
    store.charges = [a_charge()]
    assert await ChargeWaiters(store.find).wait(store.charges[0].appointment_id, 10) == store.charges[0]


async def test_waiting_costs_nothing_while_nobody_waits() -> None:
    store = Store()
    charge_waiters = ChargeWaiters(store.find)
    before = asyncio.all_tasks()
    with pytest.raises(NotFound):
        await charge_waiters.wait(uuid4(), 0.01)
    await asyncio.gather(
        *asyncio.all_tasks() - before, return_exceptions=True
    )  # the last look ends by itself
    asked = len(store.asked)
    charge_waiters.notify(AddResult([a_charge()], []))
    assert len(store.asked) == asked


async def test_a_waiter_that_is_cancelled_makes_room_and_leaves_others_alone() -> None:
    store = Store()
    charge_waiters, charge = ChargeWaiters(store.find), a_charge()
    waiters = [
        asyncio.create_task(charge_waiters.wait(charge.appointment_id, 10)) for _ in range(MAX_WAITERS)
    ]
    await store.was_asked.wait()
    with pytest.raises(Unavailable):
        await charge_waiters.wait(charge.appointment_id, 10)
    waiters[0].cancel()
    await asyncio.wait(waiters[:1])
    waiters[0] = asyncio.create_task(charge_waiters.wait(charge.appointment_id, 10))
    await asyncio.sleep(0)
    charge_waiters.notify(AddResult([charge], []))
    assert await asyncio.gather(*waiters) == [charge] * MAX_WAITERS


class Crowd(Store):
    """Every look-up takes 40 ms, and each brings a new waiter: there is always somebody new."""

    now = 0.0
    waiters: ChargeWaiters
    latecomers: list[asyncio.Task[Charge]]

    async def find(self, ids: Sequence[UUID]) -> Sequence[Charge]:
        self.now += 0.04
        if len(self.asked) < 100:
            self.latecomers.append(asyncio.create_task(self.waiters.wait(uuid4(), 3600)))
            await asyncio.sleep(0)
        return await super().find(ids)


async def test_waiters_are_looked_up_again_while_new_ones_come() -> None:
    store = Crowd()
    store.waiters, store.latecomers = ChargeWaiters(store.find, lambda: store.now), []
    charge = a_charge()
    waiting = asyncio.create_task(store.waiters.wait(charge.appointment_id, 3600))
    await store.was_asked.wait()
    store.charges = [charge]  # another process made it
    assert await waiting == charge
    assert len(store.asked) <= 4
    for each in store.latecomers:
        each.cancel()


async def test_a_new_waiter_is_looked_up_before_the_next_look_up_of_all() -> None:
    store = Store()
    waiters = ChargeWaiters(store.find, lambda: 0.0)
    first, second = uuid4(), uuid4()
    waiting = [asyncio.create_task(waiters.wait(first, 3600))]
    await store.was_asked.wait()
    store.was_asked.clear()
    waiting.append(asyncio.create_task(waiters.wait(second, 3600)))
    await store.was_asked.wait()
    assert store.asked == [{first}, {second}]
    for each in waiting:
        each.cancel()


async def test_an_unforeseen_failure_of_the_look_up_reaches_those_it_concerns() -> None:
    store = Store()
    store.failures = [ValueError("a charge that cannot be read")]
    charge_waiters, charge = ChargeWaiters(store.find), a_charge()
    with pytest.raises(ValueError, match="cannot be read"):
        await charge_waiters.wait(uuid4(), 10)
    store.charges = [charge]
    assert await charge_waiters.wait(charge.appointment_id, 10) == charge


async def test_a_failed_look_up_of_one_leaves_the_others_waiting() -> None:
    store = Store()
    charge_waiters, charge = ChargeWaiters(store.find, lambda: 0.0), a_charge()
    waiting = asyncio.create_task(charge_waiters.wait(charge.appointment_id, 10))
    await store.was_asked.wait()
    store.failures = [ValueError("a charge that cannot be read")]
    with pytest.raises(ValueError, match="cannot be read"):
        await charge_waiters.wait(uuid4(), 10)
    charge_waiters.notify(AddResult([charge], []))
    assert await waiting == charge


async def test_a_store_that_never_answers_is_unavailable_and_not_a_missing_charge() -> None:
    store = Store()
    store.failures = [Unavailable("it does not answer")] * 100
    with pytest.raises(Unavailable):
        await ChargeWaiters(store.find).wait(uuid4(), 0.01)
