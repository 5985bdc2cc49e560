"""What every store of charges must do.

Each test's name is a sentence of the port's docstring, or follows from one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise, product
from operator import attrgetter
from pathlib import Path
from typing import ClassVar
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from msgspec.structs import replace

from clinic.domain.errors import NotFound, Unavailable
from clinic.domain.financial import ports as financial
from clinic.domain.money import Money
from clinic.testing.builders import (
    ONE_O_CLOCK,
    TWO_O_CLOCK,
    a_charge,
    an_origin,
)
from clinic.testing.charges_machine import ChargesMachine, is_charge_wanted
from clinic.testing.subject import Contract


class ChargesContract(Contract):
    """Charges."""

    most_waiters: ClassVar[int] = 1000

    def opened(self, where: Path) -> AbstractAsyncContextManager[financial.Charges]:
        """The subject on the data at that place; leaving ends its process."""
        raise NotImplementedError

    def unanswering(self, where: Path) -> AbstractAsyncContextManager[financial.Charges]:
        """A subject whose server or file is gone. Not asked for where it `always_answers`."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def charges(self, where: Path) -> AsyncIterator[financial.Charges]:
        async with self.opened(where) as charges:
            yield charges

    def test_any_history_of_calls_goes_as_a_simple_model_says(self, where: Path) -> None:
        self.goes_as_its_model(lambda: ChargesMachine(self, self.opened, where))

    async def test_all_are_kept_when_add_returns(self, charges: financial.Charges) -> None:
        new = [a_charge() for _ in range(3)]
        assert await charges.add(new) == financial.AddResult(new, [])
        assert [await charges.get(each.appointment_id) for each in new] == new

    async def test_an_appointment_without_a_charge_is_not_found(self, charges: financial.Charges) -> None:
        with pytest.raises(NotFound):
            await charges.get(uuid4())

    async def test_the_first_charge_stays_for_ever(self, charges: financial.Charges) -> None:
        first = a_charge()
        later = a_charge(
            appointment_id=first.appointment_id, total=Money("1.00"), origin=an_origin(position="log/2")
        )
        await charges.add([first])
        assert await charges.add([later]) == financial.AddResult([], [first])
        assert await charges.get(first.appointment_id) == first

    async def test_of_two_charges_for_one_appointment_in_a_batch_the_first_stays(
        self, charges: financial.Charges
    ) -> None:
        first = a_charge()
        later = replace(first, total=Money("1.00"))
        assert await charges.add([first, later]) == financial.AddResult([first], [first])
        assert await charges.get(first.appointment_id) == first

    async def test_new_charges_are_distinguished_from_existing_ones(self, charges: financial.Charges) -> None:
        existing, new = [a_charge(), a_charge()], [a_charge(), a_charge()]
        await charges.add(existing)
        again = [replace(each, charged_at=each.charged_at + timedelta(seconds=1)) for each in existing]
        added = await charges.add([again[0], new[0], again[1], new[1]])
        assert sorted(added.new, key=attrgetter("cursor")) == sorted(new, key=attrgetter("cursor"))
        assert sorted(added.existing, key=attrgetter("cursor")) == sorted(existing, key=attrgetter("cursor"))

    async def test_concurrent_adds_keep_one_charge_and_all_agree_on_it(
        self, charges: financial.Charges
    ) -> None:
        rivals = [
            replace(a_charge(), appointment_id=UUID(int=1), total=Money(f"{number}.00"))
            for number in range(10)
        ]
        outcomes = await self.soon(asyncio.gather(*(charges.add([each]) for each in rivals)))
        kept = await charges.get(UUID(int=1))
        assert [each for outcome in outcomes for each in outcome.new] == [kept]
        assert [each for outcome in outcomes for each in outcome.existing] == [kept] * 9

    async def test_nothing_to_add_is_fine(self, charges: financial.Charges) -> None:
        assert await charges.add([]) == financial.AddResult([], [])

    @pytest.mark.parametrize(
        "exact",
        [
            {"price": Money("9999999999999.99"), "total": Money("0.01")},
            {"price": Money("0.00"), "total": Money("0.00")},
            {"hours": Fraction(13, 12)},
            {"hours": Fraction(10**12, 3)},
            {"charged_at": TWO_O_CLOCK + timedelta(milliseconds=1)},
            {
                "start": ONE_O_CLOCK.replace(year=1),
                "end": ONE_O_CLOCK.replace(year=9999),
                "pricing": "pro-rata",
            },
            {
                "origin": an_origin(
                    position="log/0/7", published_at=TWO_O_CLOCK + timedelta(milliseconds=999), attempts=3
                )
            },
        ],
        ids=" ".join,
    )
    async def test_money_hours_and_milliseconds_are_kept_exactly(
        self, charges: financial.Charges, exact: dict[str, object]
    ) -> None:
        charge = a_charge(**exact)
        await charges.add([charge])
        assert await charges.get(charge.appointment_id) == charge

    async def test_a_charge_that_is_there_has_arrived(self, charges: financial.Charges) -> None:
        charge = a_charge()
        await charges.add([charge])
        assert await charges.wait_for(charge.appointment_id, self.patience) == charge

    async def test_a_charge_wakes_all_who_wait_for_it_and_nobody_else(
        self, charges: financial.Charges
    ) -> None:
        mine, others = a_charge(), a_charge()
        waiters = [
            asyncio.create_task(charges.wait_for(mine.appointment_id, self.patience)) for _ in range(3)
        ]
        other = asyncio.create_task(charges.wait_for(others.appointment_id, self.patience))
        await asyncio.sleep(0)
        await charges.add([mine])
        assert await self.soon(asyncio.gather(*waiters)) == [mine] * 3
        await charges.add([others])
        assert await self.soon(other) == others

    async def test_a_charge_that_does_not_come_is_not_found(self, charges: financial.Charges) -> None:
        with pytest.raises(NotFound):
            await charges.wait_for(uuid4(), 0.05)

    async def test_also_finds_what_another_process_charged(self, where: Path) -> None:
        self.only_if(self.several, "one process at a time")
        charge = a_charge()
        async with self.opened(where) as one, self.opened(where) as other:
            waiter = asyncio.create_task(one.wait_for(charge.appointment_id, self.patience))
            await asyncio.sleep(0)
            await other.add([charge])
            assert await self.soon(waiter) == charge

    async def test_where_too_many_wait_already_one_more_is_turned_away(
        self, charges: financial.Charges
    ) -> None:
        waiters = [
            asyncio.create_task(charges.wait_for(uuid4(), self.patience)) for _ in range(self.most_waiters)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await charges.wait_for(uuid4(), self.patience)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.wait(waiters)
        with pytest.raises(NotFound):  # there is room again
            await charges.wait_for(uuid4(), 0.05)

    async def test_a_page_shows_the_newest_place_first_from_behind_a_given_one(
        self, charges: financial.Charges
    ) -> None:
        times = [TWO_O_CLOCK, TWO_O_CLOCK + timedelta(milliseconds=1)]
        kept = sorted(
            [a_charge(charged_at=time) for time in times for _ in range(3)],
            key=attrgetter("cursor"),
            reverse=True,
        )
        await charges.add(kept[::-1])
        assert list(await charges.page(financial.ChargeFilter(), 100)) == kept
        assert list(await charges.page(financial.ChargeFilter(), 4)) == kept[:4]
        for place, behind in pairwise(range(7)):
            assert (
                list(await charges.page(financial.ChargeFilter(), 100, kept[place].cursor)) == kept[behind:]
            )

    async def test_a_page_shows_what_meets_every_condition_that_is_set(
        self, charges: financial.Charges
    ) -> None:
        people, times = (
            [uuid4(), uuid4()],
            [TWO_O_CLOCK + timedelta(milliseconds=number) for number in range(3)],
        )
        await charges.add([
            a_charge(physician_id=physician, patient_id=patient, charged_at=time)
            for physician, patient, time in product(people, people, times)
        ])  # fmt: skip
        kept = await charges.page(financial.ChargeFilter(), 100)
        assert len(kept) == 12
        for conditions in product([None, people[0]], [None, people[1]], [None, times[1]], [None, times[2]]):
            wanted = financial.ChargeFilter(*conditions)
            expected = [each for each in kept if is_charge_wanted(each, wanted)]
            assert list(await charges.page(wanted, 100)) == expected
            assert list(await charges.page(wanted, 100, expected[0].cursor)) == expected[1:]

    async def test_all_are_shown_by_appointment_the_newest_id_first_from_behind_a_given_one(
        self, charges: financial.Charges
    ) -> None:
        any_ids = [UUID(int=1), UUID(int=1 << 127), UUID(int=(1 << 128) - 1), UUID(int=(1 << 127) - 1)]
        made = [a_charge(), a_charge(), *(a_charge(appointment_id=each) for each in any_ids)]
        kept = sorted(made, key=attrgetter("appointment_id"), reverse=True)
        await charges.add(made)
        assert list(await charges.by_appointment(100)) == kept
        assert list(await charges.by_appointment(4)) == kept[:4]
        for place, behind in pairwise(range(7)):
            assert list(await charges.by_appointment(100, kept[place].appointment_id)) == kept[behind:]

    async def test_they_are_counted(self, charges: financial.Charges) -> None:
        assert await charges.count() == 0
        await charges.add([a_charge() for _ in range(3)])
        assert await charges.count() == 3

    async def test_a_store_that_answers_says_so(self, charges: financial.Charges) -> None:
        await self.soon(charges.check())

    async def test_every_call_raises_unavailable_when_the_store_does_not_answer(self, where: Path) -> None:
        self.only_if(not self.always_answers, "it always answers")
        async with self.unanswering(where) as charges:
            reads = (
                charges.get(uuid4()),
                charges.page(financial.ChargeFilter(), 1),
                charges.by_appointment(1),
                charges.count(),
            )
            for call in (charges.add([a_charge()]), *reads, charges.check()):
                with pytest.raises(Unavailable):
                    await self.soon(call)

    async def test_what_was_added_outlives_the_process(self, where: Path) -> None:
        charge = a_charge()
        async with self.opened(where) as charges:
            await charges.add([charge])
        async with self.opened(where) as charges:
            assert list(await charges.page(financial.ChargeFilter(), 10)) == (
                [charge] if self.survives else []
            )
