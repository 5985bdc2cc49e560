"""What every store of appointments must do.

Each test's name is a sentence of the port's docstring, or follows from one.
"""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import product
from operator import attrgetter
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from clinic.domain.appointment import ports as appointment
from clinic.domain.appointment.model import Appointment
from clinic.domain.errors import Conflict, NotFound, Unavailable
from clinic.domain.money import Money
from clinic.testing.appointments_machine import AppointmentsMachine, is_wanted
from clinic.testing.builders import (
    MANY_EXTENSIONS,
    ONE_O_CLOCK,
    TWO_O_CLOCK,
    a_message,
    an_appointment,
)
from clinic.testing.outbox import LONG, OutboxContract, finished, hand_over, published, saved
from clinic.testing.subject import Store

KEY = bytes(range(32))


class AppointmentsContract(OutboxContract):
    """Appointments, with the outbox that is saved together with them."""

    def test_any_history_of_calls_goes_as_a_simple_model_says(self, where: Path) -> None:
        self.goes_as_its_model(lambda: AppointmentsMachine(self, self.opened, where, together=self.together))

    async def test_a_new_appointment_is_kept(self, store: Store) -> None:
        new = an_appointment(price=Money("123.45"))
        await store.add(new)
        assert await store.get(new.id) == new

    async def test_adding_a_known_id_is_a_conflict_and_changes_nothing(self, store: Store) -> None:
        first = an_appointment()
        await store.add(first)
        with pytest.raises(Conflict):
            await store.add(an_appointment(id=first.id))
        assert await store.get(first.id) == first

    async def test_of_all_added_under_one_key_the_first_is_kept_and_returned(self, store: Store) -> None:
        first, other, keyless = [an_appointment() for _ in range(3)]
        assert await store.add(first, once=KEY) == first
        assert await store.add(an_appointment(), once=KEY) == first
        assert await store.add(other, once=KEY[::-1]) == other
        assert await store.add(keyless) == keyless
        assert await store.add(an_appointment(), once=KEY[::-1]) == other
        expected = sorted([first, other, keyless], key=attrgetter("id"), reverse=True)
        assert list(await store.page(appointment.AppointmentFilter(), 10)) == expected

    async def test_what_was_added_under_a_key_is_returned_as_it_was_added(self, store: Store) -> None:
        first = await store.add(an_appointment(price=Money("123.45")), once=KEY)
        kept = await store.save(*finished(first))
        assert await store.add(an_appointment(), once=KEY) == first
        assert await store.get(first.id) == kept

    async def test_of_many_added_under_one_key_at_once_one_is_kept_and_each_is_told_of_it(
        self, where: Path
    ) -> None:
        async with self.opened(where, LONG) as one, AsyncExitStack() as stack:
            other = await stack.enter_async_context(self.opened(where, LONG)) if self.several else one
            adds = (store.add(an_appointment(), once=KEY) for store in (one, other) for _ in range(25))
            first, *rest = await self.soon(asyncio.gather(*adds))
            assert rest == [first] * 49
            assert list(await one.page(appointment.AppointmentFilter(), 10)) == [first]

    async def test_an_addition_under_a_key_whose_caller_was_cancelled_is_completed(self, where: Path) -> None:
        async with self.opened(where, LONG) as store:
            adding = asyncio.create_task(store.add(an_appointment(), once=KEY))
            await asyncio.sleep(0)
            adding.cancel()
            await asyncio.wait([adding])
            first = await self.soon(store.add(an_appointment(), once=KEY))
            assert list(await store.page(appointment.AppointmentFilter(), 10)) == [first]

    async def test_an_unknown_appointment_is_not_found(self, store: Store) -> None:
        with pytest.raises(NotFound):
            await store.get(uuid4())

    async def test_an_appointment_is_got_as_it_was_last_saved(self, store: Store) -> None:
        started = an_appointment()
        await store.add(started)
        state, message = finished(started)
        saved = await store.save(state, message)
        assert saved.end == TWO_O_CLOCK
        assert await store.get(started.id) == saved

    async def test_what_save_answers_can_be_saved_again(self, store: Store) -> None:
        await store.add(started := an_appointment())
        again = await store.save(await store.save(started))
        assert await store.get(started.id) == again

    async def test_the_second_of_two_writers_gets_a_conflict(self, store: Store) -> None:
        await store.add(started := an_appointment())
        one, other = await store.get(started.id), await store.get(started.id)
        await store.save(replace(one, end=TWO_O_CLOCK))
        with pytest.raises(Conflict):
            await store.save(replace(other, end=ONE_O_CLOCK))
        assert (await store.get(started.id)).end == TWO_O_CLOCK

    async def test_a_conflicting_save_keeps_no_event_and_no_state(self, store: Store) -> None:
        await store.add(started := an_appointment())
        kept = await store.save(started)
        state, message = finished(started)
        with pytest.raises(Conflict):
            await store.save(state, message)
        assert await store.get(started.id) == kept
        assert await store.oldest() is None

    async def test_saving_what_was_never_added_is_a_conflict_and_keeps_nothing(self, store: Store) -> None:
        state, message = finished(an_appointment())
        with pytest.raises(Conflict):
            await store.save(state, message)
        with pytest.raises(NotFound):
            await store.get(state.id)
        assert await store.oldest() is None

    async def test_several_saves_of_what_was_never_added_are_all_conflicts_and_keep_nothing(
        self, store: Store
    ) -> None:
        never = [replace(an_appointment(), id=UUID(int=1), version=version) for version in (1, 2, 3)]
        saves = (store.save(each, a_message(subject=str(each.id))) for each in never)
        outcomes = await self.soon(asyncio.gather(*saves, return_exceptions=True))
        assert [type(outcome) for outcome in outcomes] == [Conflict] * 3
        with pytest.raises(NotFound):
            await store.get(UUID(int=1))
        assert await store.oldest() is None

    async def test_all_events_of_a_save_are_kept_with_its_state(self, store: Store) -> None:
        await store.add(started := an_appointment())
        about = str(started.id)
        messages = [
            a_message(subject=about, time=ONE_O_CLOCK),
            a_message(subject=about, type="Zoë"),
            a_message(subject=about, data=None, extensions=()),
            a_message(subject=about, extensions=MANY_EXTENSIONS),
        ]
        await store.save(replace(started, end=TWO_O_CLOCK), *messages)
        assert await self.soon(hand_over(store, 4)) == messages

    async def test_of_fifty_concurrent_saves_exactly_one_wins(self, store: Store) -> None:
        await store.add(started := an_appointment())
        messages = [a_message(subject=str(started.id)) for _ in range(50)]
        states = [replace(started, end=ONE_O_CLOCK + timedelta(seconds=number)) for number in range(50)]
        saves = (store.save(state, message) for state, message in zip(states, messages, strict=True))
        outcomes = await self.soon(asyncio.gather(*saves, return_exceptions=True))
        assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 49
        winner = next(number for number, outcome in enumerate(outcomes) if isinstance(outcome, Appointment))
        assert (await store.get(started.id)).end == states[winner].end
        (handed,) = await self.soon(hand_over(store, 1))
        assert handed == messages[winner]
        await store.confirm(published(handed))
        assert await store.oldest() is None

    async def test_concurrent_callers_each_get_their_own_outcome(self, store: Store) -> None:
        fresh = an_appointment()
        stale = an_appointment()
        unknown = an_appointment()
        await store.add(stale)
        await store.save(stale)
        await store.add(fresh)
        new, known = store.add(an_appointment()), store.add(an_appointment(id=stale.id))
        saves = (store.save(*finished(each)) for each in (fresh, stale, unknown))
        outcomes = await self.soon(asyncio.gather(new, known, *saves, return_exceptions=True))
        assert [isinstance(outcome, Conflict) for outcome in outcomes] == [False, True, False, True, True]
        assert outcomes[2] == await store.get(fresh.id)
        assert [message.subject for message in await self.soon(hand_over(store, 1))] == [str(fresh.id)]

    async def test_a_cancelled_caller_leaves_the_others_alone(self, store: Store) -> None:
        started = [an_appointment() for _ in range(5)]
        for each in started:
            await store.add(each)
        saves = [asyncio.create_task(store.save(*finished(each))) for each in started]
        await asyncio.sleep(0)
        saves[2].cancel()
        outcomes = await self.soon(asyncio.gather(*saves[:2], *saves[3:]))
        assert [outcome.end for outcome in outcomes] == [TWO_O_CLOCK] * 4
        await asyncio.wait(saves)

    async def test_a_save_whose_caller_was_cancelled_is_kept_with_its_event_or_not(self, where: Path) -> None:
        async with self.opened(where, self.short_lease) as store:
            await store.add(started := an_appointment())
            save = asyncio.create_task(store.save(*finished(started)))
            await asyncio.sleep(0)
            save.cancel()
            await asyncio.wait([save])
            sentinel = await saved(store)
            kept = (await store.get(started.id)).end is not None
            handed = await self.soon(hand_over(store, 2 if kept else 1))
            assert {message.subject for message in handed} == {sentinel.subject} | (
                {str(started.id)} if kept else set()
            )

    async def test_a_page_shows_the_newest_ids_first_from_behind_a_given_one(self, store: Store) -> None:
        kept = sorted([an_appointment() for _ in range(5)], key=attrgetter("id"), reverse=True)
        for each in kept:
            await store.add(each)
        assert list(await store.page(appointment.AppointmentFilter(), 3)) == kept[:3]
        assert list(await store.page(appointment.AppointmentFilter(), 3, kept[2].id)) == kept[3:]
        assert list(await store.page(appointment.AppointmentFilter(), 3, kept[4].id)) == []

    async def test_a_page_shows_what_meets_every_condition_that_is_set(self, store: Store) -> None:
        people = [uuid4(), uuid4()]
        for physician, patient, end in product(people, people, (None, TWO_O_CLOCK)):
            for start in (ONE_O_CLOCK, TWO_O_CLOCK):
                await store.add(
                    an_appointment(physician_id=physician, patient_id=patient, start=start, end=end)
                )
        kept = await store.page(appointment.AppointmentFilter(), 100)
        assert len(kept) == 16
        for conditions in product(
            [None, people[0]], [None, people[1]], [None, True, False], [None, TWO_O_CLOCK]
        ):
            wanted = appointment.AppointmentFilter(*conditions)
            expected = [each for each in kept if is_wanted(each, wanted)]
            assert list(await store.page(wanted, 100)) == expected
            assert list(await store.page(wanted, 100, expected[0].id)) == expected[1:]

    async def test_a_store_that_answers_says_so(self, store: Store) -> None:
        await self.soon(store.check())

    async def test_every_call_raises_unavailable_when_the_store_does_not_answer(self, where: Path) -> None:
        self.only_if(not self.always_answers, "it always answers")
        state, message = finished(an_appointment())
        async with self.unanswering(where) as store:
            for call in (
                store.add(state),
                store.add(state, once=KEY),
                store.get(state.id),
                store.save(state, message),
                store.page(appointment.AppointmentFilter(), 1),
                store.check(),
                store.claim(1),
                store.confirm(published(message)),
                store.oldest(),
                store.waiting(1),
                store.status(message),
            ):
                with pytest.raises(Unavailable):
                    await self.soon(call)

    async def test_what_was_saved_outlives_the_process(self, where: Path) -> None:
        async with self.opened(where, LONG) as store:
            started = await store.add(an_appointment(), once=KEY)
            kept = await store.save(replace(started, end=TWO_O_CLOCK))
        async with self.opened(where, LONG) as store:
            if self.survives:
                assert await store.add(an_appointment(), once=KEY) == started
            assert list(await store.page(appointment.AppointmentFilter(), 10)) == (
                [kept] if self.survives else []
            )
