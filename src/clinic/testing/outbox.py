"""What every outbox must do.

Each test's name is a sentence of the port's docstring, or follows from one.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import ClassVar
from uuid import UUID

import pytest_asyncio

from clinic.domain.appointment.model import Appointment
from clinic.domain.events import to_message
from clinic.domain.messaging.messages import Message, PublicationStatus, PublishResult
from clinic.domain.messaging.ports import Outbox
from clinic.testing.builders import (
    ONE_O_CLOCK,
    TWO_O_CLOCK,
    a_message,
    an_appointment,
    now,
)
from clinic.testing.subject import Contract, Store

LONG = 600.0
"""A lease that ends after every test: what comes within it was not found by a sweep."""
SOON = timedelta(seconds=5)
"""How far a store's clock may be from this machine's."""


def finished(started: Appointment) -> tuple[Appointment, Message]:
    """Its next state, and its event."""
    state, event = started.finish(TWO_O_CLOCK)
    assert event
    return state, to_message(event)


async def saved(store: Store) -> Message:
    """The event of an appointment that was finished just now."""
    started = an_appointment()
    await store.add(started)
    state, message = finished(started)
    await store.save(state, message)
    return message


async def hand_over(outbox: Outbox, count: int) -> list[Message]:
    """This many events, in the order in which they were handed over."""
    found: list[Message] = []
    while len(found) < count:
        found += [each.message for each in await outbox.claim(count - len(found))]
    return found


def published(*messages: Message) -> list[PublishResult]:
    return [PublishResult(message, f"log/{number}", now()) for number, message in enumerate(messages)]


def ids(messages: Sequence[Message]) -> list[str]:
    return sorted(message.id for message in messages)


class OutboxContract(Contract):
    """What every outbox must do, as a store of appointments fills it."""

    short_lease: ClassVar[float] = 0.2
    together: ClassVar[bool] = False
    """The events of one appointment share one lease.

    While one is held, others may wait with it; confirming one frees them.
    """

    def opened(self, where: Path, lease: float) -> AbstractAsyncContextManager[Store]:
        """The subject on the data at that place; leaving ends its process."""
        raise NotImplementedError

    def unanswering(self, where: Path) -> AbstractAsyncContextManager[Store]:
        """A subject whose server or file is gone. Not asked for where it `always_answers`."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def store(self, where: Path) -> AsyncIterator[Store]:
        async with self.opened(where, LONG) as store:
            yield store

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

    async def test_a_claim_says_when_its_event_was_saved_as_its_status_does(self, where: Path) -> None:
        async with self.opened(where, self.short_lease) as store:
            status = await store.status(await saved(store))
            claims = [await self.soon(store.claim(1)) for _ in range(2)]
            assert status
            assert [claimed.saved_at for (claimed,) in claims] == [status.saved_at] * 2

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

    async def test_within_its_lease_an_event_is_handed_to_one_caller(self, store: Store) -> None:
        await saved(store)
        await self.soon(store.claim(10))
        second = asyncio.create_task(store.claim(10))
        await asyncio.sleep(0)
        sentinel = await saved(store)
        assert [each.message for each in await self.soon(second)] == [sentinel]

    async def test_concurrent_claimers_share_the_events(self, store: Store) -> None:
        await self.shared_by_claimers(store, store)

    async def test_claimers_of_several_processes_share_the_events(self, where: Path) -> None:
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

    async def test_after_its_lease_an_event_is_handed_over_again(self, where: Path) -> None:
        async with self.opened(where, self.short_lease) as store:
            message = await saved(store)
            (first,) = await self.soon(store.claim(10))
            (again,) = await self.soon(store.claim(10))
            assert first.message == again.message == message
            assert first.expires_at < again.expires_at

    async def test_a_waiting_claim_finds_an_event_whose_lease_runs_out(self, where: Path) -> None:
        async with self.opened(where, self.short_lease) as store:
            held, free = await saved(store), await saved(store)
            assert ids(await self.soon(hand_over(store, 2))) == ids([held, free])
            await store.confirm(published(free))
            assert await self.soon(hand_over(store, 1)) == [held]

    async def test_the_first_time_events_of_one_key_come_in_the_order_of_their_saves(
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
        """This many events, each confirmed before the next are asked for."""
        found: list[Message] = []
        while len(found) < count:
            claimed = [each.message for each in await self.soon(store.claim(2))]
            await store.confirm(published(*claimed))
            found += claimed
        return found

    async def test_confirming_forgets_exactly_these_events(self, where: Path) -> None:
        async with self.opened(where, self.short_lease) as store:
            first, second, third = [await saved(store) for _ in range(3)]
            await self.soon(hand_over(store, 3))
            await store.confirm(published(first, third))
            assert await self.soon(hand_over(store, 1)) == [second]
            await store.confirm(published(second))
            assert await store.oldest() is None

    async def test_an_event_saved_before_confirming_is_still_handed_over(self, store: Store) -> None:
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

    async def test_count_says_how_many_events_are_unpublished_up_to_a_limit(self, store: Store) -> None:
        assert await store.count(2) == 0
        first, *_ = [await saved(store) for _ in range(3)]
        assert [await store.count(limit) for limit in (2, 3, 4)] == [2, 3, 3]
        await hand_over(store, 3)
        assert await store.count(4) == 3
        await store.confirm(published(first))
        assert await store.count(4) == 2

    async def test_oldest_says_when_the_oldest_unpublished_event_was_saved(self, store: Store) -> None:
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

    async def test_what_waits_is_listed_a_page_at_a_time_the_longest_waiting_first(
        self, store: Store
    ) -> None:
        messages = [await saved(store) for _ in range(3)]
        messages += await self.soon(asyncio.gather(*(saved(store) for _ in range(4))))  # at one moment
        places = [(await self._saved_at(store, each), each.subject) for each in messages]
        places.sort()
        assert list(await store.waiting(10)) == places
        assert list(await store.waiting(2)) == places[:2]
        assert list(await store.waiting(3, after=places[1])) == places[2:5]
        assert list(await store.waiting(10, after=places[6])) == []
        for moment, _ in places:
            early = [place for place in places if place[0] < moment]
            assert list(await store.waiting(10, moment)) == early
            assert list(await store.waiting(10, moment, places[0])) == early[1:]

    async def test_what_is_published_waits_no_more_and_its_place_still_divides_the_list(
        self, store: Store
    ) -> None:
        messages = [await saved(store) for _ in range(4)]
        places = list(await store.waiting(10))
        gone = {subject for _, subject in places[:2]}
        await store.confirm(published(*(each for each in messages if each.subject in gone)))
        assert list(await store.waiting(10)) == places[2:]
        assert list(await store.waiting(10, after=places[0])) == places[2:]

    async def _saved_at(self, store: Store, message: Message) -> datetime:
        status = await store.status(message)
        assert status
        return status.saved_at

    async def test_status_says_when_an_event_was_saved_and_when_and_where_published(
        self, store: Store
    ) -> None:
        before, message = now(), await saved(store)
        waiting = await store.status(message)
        assert waiting
        assert before - SOON < waiting.saved_at < now() + SOON
        assert (waiting.published_at, waiting.position) == (None, None)
        await store.confirm([PublishResult(message, "log/7", TWO_O_CLOCK)])
        assert await store.status(message) == PublicationStatus(waiting.saved_at, TWO_O_CLOCK, "log/7")

    async def test_an_event_that_was_never_saved_has_no_status(self, store: Store) -> None:
        message = await saved(store)
        assert await store.status(a_message()) is None
        assert await store.status(a_message(subject=message.subject)) is None
        await store.confirm(published(message))
        assert await store.status(a_message(subject=message.subject)) is None

    async def test_an_event_saved_again_waits_until_it_is_published_again(self, store: Store) -> None:
        message = await saved(store)
        await store.confirm([PublishResult(message, "log/1", ONE_O_CLOCK)])
        await store.save(await store.get(UUID(message.subject)), message)
        waiting = await store.status(message)
        assert waiting
        assert waiting.published_at is None
        await store.confirm([PublishResult(message, "log/2", TWO_O_CLOCK)])
        assert await store.status(message) == PublicationStatus(waiting.saved_at, TWO_O_CLOCK, "log/2")

    async def test_each_event_of_an_appointment_has_a_status_of_its_own(self, store: Store) -> None:
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
            await self.soon(store.claim(1))  # it dies holding one event
        async with self.opened(where, self.short_lease) as store:
            assert (await store.oldest() is not None) is self.survives
            handed = await self.soon(hand_over(store, 2)) if self.survives else messages
            assert ids(handed) == ids(messages)
