"""What every store must do. Each test's name is a sentence of a port's docstring, or what follows from
one.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise, product
from operator import attrgetter
from pathlib import Path
from time import monotonic
from typing import ClassVar
from uuid import UUID, uuid4

import pytest
from builders import (
    ONE_O_CLOCK,
    TWO_O_CLOCK,
    a_charge,
    a_history_entry,
    a_letter,
    a_message,
    an_appointment,
    an_origin,
    now,
)
from msgspec.structs import asdict, replace

from clinic.domain.appointment import ports as appointment
from clinic.domain.appointment.model import Appointment
from clinic.domain.errors import Conflict, NotFound, Unavailable
from clinic.domain.events import to_message
from clinic.domain.financial import ports as financial
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetterFilter, DeadLetters
from clinic.domain.messaging.messages import Message, PublicationStatus, PublishResult
from clinic.domain.messaging.ports import Outbox
from clinic.domain.money import Money
from contracts.appointments_machine import AppointmentsMachine, is_wanted
from contracts.charges_machine import ChargesMachine, is_charge_wanted
from contracts.dead_letters_machine import DeadLettersMachine
from contracts.subject import Contract, Store

LONG = 600.0
"""A lease that ends after every test: what comes within it was not found by a sweep."""
SOON = timedelta(seconds=5)
"""How far a store's clock may be from this machine's."""


def finished(started: Appointment) -> tuple[Appointment, Message]:
    """Its next state, and the news of it."""
    state, event = started.finish(TWO_O_CLOCK)
    assert event
    return state, to_message(event)


async def saved(store: Store) -> Message:
    """The news of an appointment that was finished just now."""
    started = an_appointment()
    await store.add(started)
    state, message = finished(started)
    await store.save(state, message)
    return message


async def hand_over(outbox: Outbox, count: int) -> list[Message]:
    """So many facts, in the order in which they were handed over."""
    found: list[Message] = []
    while len(found) < count:
        found += [each.message for each in await outbox.claim(count - len(found))]
    return found


def published(*messages: Message) -> list[PublishResult]:
    return [PublishResult(message, f"log/{number}", now()) for number, message in enumerate(messages)]


def ids(messages: Sequence[Message]) -> list[str]:
    return sorted(message.id for message in messages)


class AppointmentsContract(Contract):
    """Appointments and their outbox."""

    short_lease: ClassVar[float] = 0.2
    together: ClassVar[bool] = False
    """The facts of one appointment have one lease: while one is held, others may wait with it; confirming one
    frees them.
    """

    def opened(self, where: Path, lease: float) -> AbstractAsyncContextManager[Store]:
        """The subject on the data at that place; leaving ends its process."""
        raise NotImplementedError

    def unanswering(self, where: Path) -> AbstractAsyncContextManager[Store]:
        """A subject whose server or file is gone. Not asked for where it `always_answers`."""
        raise NotImplementedError

    @pytest.fixture
    async def store(self, where: Path) -> AsyncIterator[Store]:
        async with self.opened(where, LONG) as store:
            yield store

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

    async def test_an_unknown_appointment_is_not_found(self, store: Store) -> None:
        with pytest.raises(NotFound):
            await store.get(uuid4())

    async def test_an_appointment_is_got_as_it_was_last_saved(self, store: Store) -> None:
        started = an_appointment()
        await store.add(started)
        state, message = finished(started)
        translate_errors = await store.save(state, message)
        assert translate_errors.end == TWO_O_CLOCK
        assert await store.get(started.id) == translate_errors

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

    async def test_a_conflicting_save_keeps_no_fact_and_no_state(self, store: Store) -> None:
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

    async def test_all_facts_of_a_save_are_kept_with_its_state(self, store: Store) -> None:
        await store.add(started := an_appointment())
        about = str(started.id)
        messages = [
            a_message(subject=about, time=ONE_O_CLOCK),
            a_message(subject=about, type="Zoë"),
            a_message(subject=about, data=None),
        ]
        await store.save(replace(started, end=TWO_O_CLOCK), *messages)
        assert await self.soon(hand_over(store, 3)) == messages

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
        fresh, stale, unknown = an_appointment(), an_appointment(), an_appointment()
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

    async def test_a_save_whose_caller_was_cancelled_is_kept_with_its_fact_or_not_at_all(
        self, where: Path
    ) -> None:
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
            await store.add(an_appointment(physician_id=physician, patient_id=patient, end=end))
        kept = await store.page(appointment.AppointmentFilter(), 100)
        assert len(kept) == 8
        for conditions in product([None, people[0]], [None, people[1]], [None, True, False]):
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
                store.get(state.id),
                store.save(state, message),
                store.page(appointment.AppointmentFilter(), 1),
                store.check(),
                store.claim(1),
                store.confirm(published(message)),
                store.oldest(),
                store.status(message),
            ):
                with pytest.raises(Unavailable):
                    await self.soon(call)

    async def test_what_was_saved_outlives_the_process(self, where: Path) -> None:
        async with self.opened(where, LONG) as store:
            await store.add(started := an_appointment())
            kept = await store.save(replace(started, end=TWO_O_CLOCK))
        async with self.opened(where, LONG) as store:
            assert list(await store.page(appointment.AppointmentFilter(), 10)) == (
                [kept] if self.survives else []
            )

    async def test_up_to_the_limit_is_handed_over_and_one_at_least(self, store: Store) -> None:
        messages = [await saved(store) for _ in range(3)]
        first = await self.soon(store.claim(2))
        assert 1 <= len(first) <= 2
        rest = await self.soon(hand_over(store, 3 - len(first)))
        assert ids([*(each.message for each in first), *rest]) == ids(messages)

    async def test_a_claim_says_until_when_it_holds(self, store: Store) -> None:
        await saved(store)
        before = monotonic()
        (claimed,) = await self.soon(store.claim(1))
        assert before < claimed.expires_at <= monotonic() + LONG

    async def test_a_waiting_claim_wakes_as_soon_as_something_is_saved(self, store: Store) -> None:
        claim = asyncio.create_task(store.claim(10))
        await asyncio.sleep(0)
        message = await saved(store)
        (claimed,) = await self.soon(claim)
        assert claimed.message == message

    async def test_a_claim_that_is_cancelled_while_waiting_takes_nothing(self, store: Store) -> None:
        claim = asyncio.create_task(store.claim(10))
        await asyncio.sleep(0)
        claim.cancel()
        await asyncio.wait([claim])
        message = await saved(store)
        assert await self.soon(hand_over(store, 1)) == [message]

    async def test_within_its_lease_a_fact_is_handed_to_one_caller(self, store: Store) -> None:
        await saved(store)
        await self.soon(store.claim(10))
        second = asyncio.create_task(store.claim(10))
        await asyncio.sleep(0)
        sentinel = await saved(store)
        assert [each.message for each in await self.soon(second)] == [sentinel]

    async def test_concurrent_claimers_share_the_facts(self, store: Store) -> None:
        await self.shared_by_claimers(store, store)

    async def test_claimers_of_several_processes_share_the_facts(self, where: Path) -> None:
        self.only_if(self.several, "one process at a time")
        async with self.opened(where, LONG) as one, self.opened(where, LONG) as other:
            await self.shared_by_claimers(one, other)

    async def shared_by_claimers(self, one: Store, other: Store) -> None:
        messages = [await saved(one) for _ in range(12)]
        handed: list[Message] = []

        async def take(store: Store) -> None:
            while len(handed) < len(messages):
                handed.extend(each.message for each in await store.claim(2))

        takers = [asyncio.create_task(take(store)) for store in (one, other)]
        await self.soon(asyncio.wait(takers, return_when=asyncio.FIRST_COMPLETED))
        for taker in takers:
            taker.cancel()
        await asyncio.wait(takers)
        assert ids(handed) == ids(messages)

    async def test_after_its_lease_a_fact_is_handed_over_again(self, where: Path) -> None:
        async with self.opened(where, self.short_lease) as store:
            message = await saved(store)
            (first,) = await self.soon(store.claim(10))
            (again,) = await self.soon(store.claim(10))
            assert first.message == again.message == message
            assert first.expires_at < again.expires_at

    async def test_a_waiting_claim_finds_a_fact_whose_lease_runs_out(self, where: Path) -> None:
        async with self.opened(where, self.short_lease) as store:
            held, free = await saved(store), await saved(store)
            assert ids(await self.soon(hand_over(store, 2))) == ids([held, free])
            await store.confirm(published(free))
            assert await self.soon(hand_over(store, 1)) == [held]

    async def test_the_first_time_facts_of_one_key_come_in_the_order_of_their_saves(
        self, store: Store
    ) -> None:
        mine, others = an_appointment(), an_appointment()
        await store.add(mine)
        await store.add(others)
        saved: dict[str, list[Message]] = {str(mine.id): [], str(others.id): []}
        for _ in range(5):
            events = [a_message(subject=str(each.id), key=str(each.id)) for each in (mine, mine, others)]
            mine, others = await store.save(mine, *events[:2]), await store.save(others, events[2])
            for event in events:
                saved[event.key].append(event)
        handed: dict[str, list[Message]] = {key: [] for key in saved}
        for event in await self.carried_away(store, 15):
            handed[event.key].append(event)
        assert handed == saved

    async def carried_away(self, store: Store, count: int) -> list[Message]:
        """So many facts, each confirmed before the next are asked for."""
        found: list[Message] = []
        while len(found) < count:
            claimed = [each.message for each in await self.soon(store.claim(2))]
            await store.confirm(published(*claimed))
            found += claimed
        return found

    async def test_confirming_forgets_exactly_these_facts(self, where: Path) -> None:
        async with self.opened(where, self.short_lease) as store:
            first, second, third = [await saved(store) for _ in range(3)]
            await self.soon(hand_over(store, 3))
            await store.confirm(published(first, third))
            assert await self.soon(hand_over(store, 1)) == [second]
            await store.confirm(published(second))
            assert await store.oldest() is None

    async def test_a_fact_saved_between_hand_over_and_confirming_is_still_handed_over(
        self, store: Store
    ) -> None:
        first = await saved(store)
        await self.soon(hand_over(store, 1))
        second = await saved(store)
        await store.confirm(published(first))
        assert await self.soon(hand_over(store, 1)) == [second]

    async def test_confirming_passes_over_what_is_unknown(self, store: Store) -> None:
        message = await saved(store)
        await store.confirm(published(a_message(), message, a_message()))
        await store.confirm(published(message))
        assert await store.oldest() is None

    async def test_oldest_says_when_the_oldest_unpublished_fact_was_saved(self, store: Store) -> None:
        assert await store.oldest() is None
        first = await saved(store)
        since = await store.oldest()
        assert since
        assert now() - SOON < since < now() + SOON
        second = await saved(store)
        assert await store.oldest() == since
        await store.confirm(published(first))
        after = await store.oldest()
        assert after
        assert after >= since
        await store.confirm(published(second))
        assert await store.oldest() is None

    async def test_told_says_when_a_fact_was_saved_and_when_and_where_it_was_published_since(
        self, store: Store
    ) -> None:
        before, message = now(), await saved(store)
        waiting = await store.status(message)
        assert waiting
        assert before - SOON < waiting.saved_at < now() + SOON
        assert (waiting.published_at, waiting.position) == (None, None)
        await store.confirm([PublishResult(message, "log/7", TWO_O_CLOCK)])
        assert await store.status(message) == PublicationStatus(waiting.saved_at, TWO_O_CLOCK, "log/7")

    async def test_told_knows_nothing_of_a_fact_that_never_was_saved(self, store: Store) -> None:
        message = await saved(store)
        assert await store.status(a_message()) is None
        assert await store.status(a_message(subject=message.subject)) is None
        await store.confirm(published(message))
        assert await store.status(a_message(subject=message.subject)) is None

    async def test_a_fact_that_is_saved_again_waits_again_until_it_is_published_again(
        self, store: Store
    ) -> None:
        message = await saved(store)
        await store.confirm([PublishResult(message, "log/1", ONE_O_CLOCK)])
        await store.save(await store.get(UUID(message.subject)), message)
        waiting = await store.status(message)
        assert waiting
        assert waiting.published_at is None
        await store.confirm([PublishResult(message, "log/2", TWO_O_CLOCK)])
        assert await store.status(message) == PublicationStatus(waiting.saved_at, TWO_O_CLOCK, "log/2")

    async def test_each_fact_of_an_appointment_is_told_on_its_own(self, store: Store) -> None:
        await store.add(started := an_appointment())
        one, other = (a_message(subject=str(started.id)) for _ in range(2))
        await store.save(started, one, other)
        await store.confirm([PublishResult(one, "log/1", TWO_O_CLOCK)])
        first, second = await store.status(one), await store.status(other)
        assert first
        assert second
        assert (first.position, second.position) == ("log/1", None)

    async def test_what_a_dead_process_left_behind_is_found_by_the_next(self, where: Path) -> None:
        async with self.opened(where, self.short_lease) as store:
            messages = [await saved(store), await saved(store)]
            await self.soon(store.claim(1))  # it dies with one fact in its hands
        async with self.opened(where, self.short_lease) as store:
            assert (await store.oldest() is not None) is self.survives
            handed = await self.soon(hand_over(store, 2)) if self.survives else messages
            assert ids(handed) == ids(messages)


class ChargesContract(Contract):
    """Charges."""

    most_waiters: ClassVar[int] = 1000

    def opened(self, where: Path) -> AbstractAsyncContextManager[financial.Charges]:
        """The subject on the data at that place; leaving ends its process."""
        raise NotImplementedError

    def unanswering(self, where: Path) -> AbstractAsyncContextManager[financial.Charges]:
        """A subject whose server or file is gone. Not asked for where it `always_answers`."""
        raise NotImplementedError

    @pytest.fixture
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

    async def test_what_is_new_is_told_apart_from_what_stands(self, charges: financial.Charges) -> None:
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


class DeadLettersContract(Contract):
    """Dead letters."""

    def opened(self, where: Path) -> AbstractAsyncContextManager[DeadLetters]:
        """The subject on the data at that place; leaving ends its process."""
        raise NotImplementedError

    def unanswering(self, where: Path) -> AbstractAsyncContextManager[DeadLetters]:
        """A subject whose server or file is gone. Not asked for where it `always_answers`."""
        raise NotImplementedError

    @pytest.fixture
    async def letters(self, where: Path) -> AsyncIterator[DeadLetters]:
        async with self.opened(where) as letters:
            yield letters

    def test_any_history_of_calls_goes_as_a_simple_model_says(self, where: Path) -> None:
        self.goes_as_its_model(lambda: DeadLettersMachine(self, self.opened, where))

    async def test_each_is_kept_under_its_position(self, letters: DeadLetters) -> None:
        kept = [a_letter(position=f"log/{number}", reason=f"reason {number}") for number in range(3)]
        await letters.add(kept)
        assert [await letters.get(each.position) for each in kept] == kept
        assert list(await letters.page(DeadLetterFilter(), 10)) == [each.listed() for each in kept]

    async def test_one_that_is_there_already_keeps_its_first_sight_and_gains_attempts(
        self, letters: DeadLetters
    ) -> None:
        await letters.add([a_letter()])
        await letters.add([a_letter(first_seen=TWO_O_CLOCK, last_seen=TWO_O_CLOCK)])
        assert await letters.get("log/1") == a_letter(
            attempts=2, first_seen=ONE_O_CLOCK, last_seen=TWO_O_CLOCK
        )

    async def test_one_that_is_there_already_has_the_reason_and_the_group_of_the_last_one(
        self, letters: DeadLetters
    ) -> None:
        await letters.add([a_letter()])
        await letters.add([a_letter(reason="still not", group="still")])
        assert await letters.get("log/1") == a_letter(reason="still not", group="still", attempts=2)
        assert [each.group for each in await letters.groups()] == ["still"]

    async def test_one_that_is_there_already_keeps_its_state_and_its_history(
        self, letters: DeadLetters
    ) -> None:
        await letters.add([letter := a_letter()])
        await letters.record(letter, a_history_entry())
        await letters.add([letter])
        assert await letters.get("log/1") == a_letter(
            state="replayed", history=(a_history_entry(),), attempts=2
        )

    @pytest.mark.parametrize(
        "odd",
        [
            {"headers": ()},
            {"headers": (("a", b"1"), ("a", b"2"), ("A", b"1"), ("a", b"1"))},
            {"headers": (("null", None), ("empty", b""), ("", b"no name"))},
            {"headers": (("binary", bytes(range(256))), ("grüße", "grüße".encode()))},
            {"value": None, "length": 0},
            {"value": b"", "length": 0},
            {"value": bytes(range(256)) * 4096, "length": 2**40},
            {"key": None},
            {"key": b"\x00\xff"},
            {"message_id": "", "reason": "a\x00b 'quoted' \N{PILE OF POO}"},
            {"about": "", "type": "", "published_at": TWO_O_CLOCK + timedelta(milliseconds=1)},
            {"about": "a\x00b 'quoted' \N{PILE OF POO}", "type": "$type.of.0"},
        ],
        ids=range(12),
    )
    async def test_whatever_arrived_is_kept_as_it_was(
        self, letters: DeadLetters, odd: dict[str, object]
    ) -> None:
        letter: DeadLetter = a_letter(**odd)
        await letters.add([letter])
        assert await letters.get(letter.position) == letter
        assert list(await letters.page(DeadLetterFilter(), 10)) == [letter.listed()]

    async def test_a_page_shows_letters_by_position_from_behind_a_given_one(
        self, letters: DeadLetters
    ) -> None:
        kept = [a_letter(position=f"log/{number}") for number in "13579"]
        await letters.add(kept[::-1])
        kept = [each.listed() for each in kept]
        assert list(await letters.page(DeadLetterFilter(), 2)) == kept[:2]
        assert list(await letters.page(DeadLetterFilter(), 2, "log/3")) == kept[2:4]
        assert list(await letters.page(DeadLetterFilter(), 10, "log/4")) == kept[2:]

    async def test_a_page_shows_the_letters_that_meet_every_condition_that_is_set(
        self, letters: DeadLetters
    ) -> None:
        shapes = list(
            product(("waiting", "replayed", "discarded"), ("one", "other"), ("an appointment", "another"))
        )
        kept = [
            a_letter(position=f"log/{number:02}", state=state, group=group, about=about)
            for number, (state, group, about) in enumerate(shapes)
        ]
        await letters.add(kept)
        for state, group, about in product(
            (None, "waiting", "discarded"), (None, "one"), (None, "another", "nobody")
        ):
            wanted = DeadLetterFilter(state, group, about)  # type: ignore[arg-type]
            expected = [
                each.listed()
                for each in kept
                if state in (None, each.state) and group in (None, each.group) and about in (None, each.about)
            ]
            assert list(await letters.page(wanted, 20)) == expected, wanted
            assert (
                list(await letters.page(wanted, 2, "log/03"))
                == [each for each in expected if each.position > "log/03"][:2]
            )

    async def test_a_page_shows_the_letters_of_certain_messages(self, letters: DeadLetters) -> None:
        kept = [
            a_letter(position=f"log/{number}", about=str(number % 2), message_id=f"id {number % 3}")
            for number in range(6)
        ]
        await letters.add(kept)
        of_two = DeadLetterFilter(message_ids=("id 0", "id 2", "nobody's"))
        assert [each.position for each in await letters.page(of_two, 10)] == [
            "log/0",
            "log/2",
            "log/3",
            "log/5",
        ]
        assert [each.position for each in await letters.page(of_two, 2, "log/2")] == ["log/3", "log/5"]
        assert [each.position for each in await letters.page(replace(of_two, about="1"), 10)] == [
            "log/3",
            "log/5",
        ]
        assert list(await letters.page(DeadLetterFilter(message_ids=()), 10)) == []

    async def test_a_letter_is_found_by_its_position(self, letters: DeadLetters) -> None:
        kept = [a_letter(position=position) for position in ("topic/1/2", "topic/1/23", "topic/1")]
        await letters.add(kept)
        assert [await letters.get(each.position) for each in kept] == kept

    async def test_a_letter_that_was_never_kept_is_not_found(self, letters: DeadLetters) -> None:
        with pytest.raises(NotFound, match="log/1"):
            await letters.get("log/1")
        with pytest.raises(NotFound, match="log/1"):
            await letters.record(a_letter(), a_history_entry())
        assert list(await letters.page(DeadLetterFilter(), 10)) == []

    async def test_a_group_shows_its_counts_a_reason_and_its_first_and_last_sight(
        self, letters: DeadLetters
    ) -> None:
        later = TWO_O_CLOCK + timedelta(hours=1)
        assert list(await letters.groups()) == []
        await letters.add([
            a_letter(position="log/1", group="b", reason="price 2", first_seen=TWO_O_CLOCK, last_seen=later),
            a_letter(
                position="log/2", group="b", reason="price 1", first_seen=ONE_O_CLOCK, last_seen=TWO_O_CLOCK
            ),
            a_letter(
                position="log/3",
                group="b",
                reason="price 3",
                state="replayed",
                first_seen=TWO_O_CLOCK,
                last_seen=TWO_O_CLOCK,
            ),
            a_letter(position="log/4", group="a", reason="no type", state="discarded"),
        ])  # fmt: skip
        first, second = await letters.groups()
        nothing = {"waiting": 0, "replayed": 0, "discarded": 0}
        seen = {"first_seen": ONE_O_CLOCK, "last_seen": ONE_O_CLOCK}
        assert asdict(first) == nothing | seen | {"group": "a", "discarded": 1, "reason": "no type"}
        assert second.reason in {"price 1", "price 2", "price 3"}
        assert asdict(second) == nothing | {
            "group": "b",
            "waiting": 2,
            "replayed": 1,
            "reason": second.reason,
            "first_seen": ONE_O_CLOCK,
            "last_seen": later,
        }

    @pytest.mark.parametrize(
        ("before", "event", "state"),
        [
            ("waiting", "replayed", "replayed"),
            ("waiting", "failed again", "waiting"),
            ("waiting", "discarded", "discarded"),
            ("discarded", "replayed", "replayed"),
            ("discarded", "failed again", "discarded"),
        ],
    )
    async def test_a_handling_is_noted_with_the_state_that_follows(
        self, letters: DeadLetters, before: str, event: str, state: str
    ) -> None:
        await letters.add([letter := a_letter(state=before)])
        await letters.record(
            letter, entry := a_history_entry(event=event, by="b\x00b 'quoted'", note="\N{PILE OF POO}")
        )
        assert await letters.get("log/1") == a_letter(state=state, history=(entry,))
        assert [each.position for each in await letters.page(DeadLetterFilter(state=state), 10)] == ["log/1"]  # type: ignore[arg-type]
        (group,) = await letters.groups()
        assert getattr(group, state) == 1

    async def test_handlings_stay_in_the_order_in_which_they_were_noted(self, letters: DeadLetters) -> None:
        await letters.add([letter := a_letter()])
        entries = [a_history_entry(event="failed again", note=str(number)) for number in range(3)]
        for entry in entries:
            await letters.record(letter, entry)
            letter = await letters.get("log/1")
        assert list(letter.history) == entries

    async def test_an_entry_over_another_since_it_was_read_is_a_conflict(self, letters: DeadLetters) -> None:
        await letters.add([letter := a_letter()])
        await letters.record(letter, first := a_history_entry(event="failed again"))
        with pytest.raises(Conflict, match="log/1"):
            await letters.record(letter, a_history_entry(event="discarded", by="bob"))
        assert await letters.get("log/1") == a_letter(history=(first,))

    async def test_of_many_who_settle_at_once_exactly_one_does(self, letters: DeadLetters) -> None:
        await letters.add([letter := a_letter()])
        attempts = [letters.record(letter, a_history_entry(by=str(number))) for number in range(20)]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        (won,) = [number for number, outcome in enumerate(outcomes) if outcome is None]
        assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 19
        assert [each.by for each in (await letters.get("log/1")).history] == [str(won)]

    async def test_one_that_arrives_again_between_is_no_conflict(self, letters: DeadLetters) -> None:
        await letters.add([letter := a_letter()])
        await letters.add([letter])
        await letters.record(letter, a_history_entry())
        assert await letters.get("log/1") == a_letter(
            attempts=2, state="replayed", history=(a_history_entry(),)
        )

    async def test_every_call_raises_unavailable_when_the_store_does_not_answer(self, where: Path) -> None:
        self.only_if(not self.always_answers, "it always answers")
        async with self.unanswering(where) as letters:
            for call in (
                letters.add([a_letter()]),
                letters.get("log/1"),
                letters.page(DeadLetterFilter(), 1),
                letters.groups(),
                letters.record(a_letter(), a_history_entry()),
            ):
                with pytest.raises(Unavailable):
                    await self.soon(call)

    async def test_what_was_kept_outlives_the_process(self, where: Path) -> None:
        async with self.opened(where) as letters:
            await letters.add([letter := a_letter()])
            await letters.record(letter, a_history_entry())
        async with self.opened(where) as letters:
            kept = a_letter(state="replayed", history=(a_history_entry(),)).listed()
            assert list(await letters.page(DeadLetterFilter(), 10)) == ([kept] if self.survives else [])
