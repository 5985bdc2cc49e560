"""What the front desk does, on the memory store."""

import asyncio
from uuid import UUID, uuid4

import pytest
from builders import ONE_O_CLOCK, TWO_O_CLOCK, Noticed, StandingClock, an_appointment
from contracts.stores import hand_over, published

from clinic.adapters.memory_store import MemoryAppointments
from clinic.domain.appointment.model import Appointment
from clinic.domain.appointment.ports import Wanted
from clinic.domain.appointment.use_cases import FindAppointment, FinishAppointment, ListAppointments, StartAppointment
from clinic.domain.errors import Conflict, NotFound, Unavailable
from clinic.domain.events import read
from clinic.domain.messaging import Message
from clinic.domain.money import Money


class Slow(MemoryAppointments):
    """Lets others in between a load and its save, as a store with a server behind it does."""

    async def get(self, appointment_id: UUID) -> Appointment:
        found = await super().get(appointment_id)
        await asyncio.sleep(0)
        return found


class Busy(MemoryAppointments):
    """Somebody else saves first, so many times."""

    rivals = 0

    async def save(self, appointment: Appointment, *facts: Message) -> Appointment:
        if self.rivals:
            self.rivals -= 1
            await super().save(await self.get(appointment.id))
        return await super().save(appointment, *facts)


class Forgetful(MemoryAppointments):
    """Keeps what it is given, and loses its first answer."""

    forgetful = True

    async def save(self, appointment: Appointment, *facts: Message) -> Appointment:
        kept = await super().save(appointment, *facts)
        if self.forgetful:
            self.forgetful = False
            raise Unavailable("who knows")
        return kept


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


async def only_fact(store: MemoryAppointments) -> Message:
    """The one unpublished fact; there is no other."""
    (message,) = await hand_over(store, 1)
    await store.confirm(published(message))
    assert await store.oldest() is None
    return message


async def test_an_appointment_starts_now_at_the_clinics_price(clock: StandingClock) -> None:
    store, id_, physician, patient = MemoryAppointments(clock, 3), uuid4(), uuid4(), uuid4()
    started = await StartAppointment(store, clock, lambda: id_, Money("123.45"))(physician, patient)
    assert started == Appointment(id=id_, physician_id=physician, patient_id=patient, price=Money("123.45"), start=ONE_O_CLOCK)
    assert await FindAppointment(store)(id_) == started
    assert await store.oldest() is None


async def test_a_finish_is_kept_with_its_news(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    await store.add(started := an_appointment())
    clock.move(hours=1)
    finished = await FinishAppointment(store, clock, Noticed())(started.id)
    assert finished.end == TWO_O_CLOCK
    assert await store.get(started.id) == finished
    fact = read(await only_fact(store))
    assert fact
    assert (fact.appointment_id, fact.start, fact.end) == (started.id, ONE_O_CLOCK, TWO_O_CLOCK)


async def test_finishing_again_gives_the_first_end_and_no_second_event(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    await store.add(started := an_appointment())
    finish = FinishAppointment(store, clock, Noticed())
    first = await finish(started.id)
    clock.move(hours=1)
    assert await finish(started.id) == first
    await only_fact(store)


async def test_fifty_finishes_at_once_make_one_event(clock: StandingClock) -> None:
    store = Slow(clock, 3)
    await store.add(started := an_appointment())
    finish = FinishAppointment(store, clock, Noticed())
    answers = await asyncio.gather(*(finish(started.id) for _ in range(50)))
    assert answers == [await store.get(started.id)] * 50
    await only_fact(store)


async def test_with_a_clock_that_is_behind_the_end_is_the_start(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    await store.add(started := an_appointment())
    clock.move(hours=-1)
    assert (await FinishAppointment(store, clock, Noticed())(started.id)).end == ONE_O_CLOCK


async def test_a_finish_tries_again_where_somebody_saved_first(clock: StandingClock) -> None:
    store = Busy(clock, 3)
    await store.add(started := an_appointment())
    store.rivals = 4
    assert (await FinishAppointment(store, clock, Noticed())(started.id)).end == ONE_O_CLOCK
    await only_fact(store)


async def test_a_finish_that_never_gets_its_turn_says_so_and_keeps_nothing(clock: StandingClock) -> None:
    store = Busy(clock, 3)
    await store.add(started := an_appointment())
    store.rivals = 100
    with pytest.raises(Conflict, match="try again"):
        await FinishAppointment(store, clock, Noticed())(started.id)
    assert (await store.get(started.id)).end is None
    assert await store.oldest() is None


async def test_repeating_a_finish_whose_outcome_was_unknown_is_safe(clock: StandingClock) -> None:
    store = Forgetful(clock, 3)
    await store.add(started := an_appointment())
    finish = FinishAppointment(store, clock, Noticed())
    with pytest.raises(Unavailable):
        await finish(started.id)
    clock.move(hours=1)
    assert (await finish(started.id)).end == ONE_O_CLOCK
    await only_fact(store)


async def test_an_unknown_appointment_is_not_found(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    with pytest.raises(NotFound):
        await FinishAppointment(store, clock, Noticed())(uuid4())
    with pytest.raises(NotFound):
        await FindAppointment(store)(uuid4())


async def test_appointments_are_listed_a_page_at_a_time(clock: StandingClock) -> None:
    store, physician = MemoryAppointments(clock, 3), uuid4()
    mine = [an_appointment(id=UUID(int=number), physician_id=physician) for number in (3, 2, 1)]
    for each in [*mine, an_appointment()]:
        await store.add(each)
    listed = ListAppointments(store)
    assert list(await listed(Wanted(physician_id=physician), 2)) == mine[:2]
    assert list(await listed(Wanted(physician_id=physician), 2, mine[1].id)) == mine[2:]
