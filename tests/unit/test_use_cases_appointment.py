"""What the front desk does, on the memory store."""

import asyncio
from uuid import UUID, uuid4

import pytest

from clinic.adapters.memory.appointments import MemoryAppointments
from clinic.domain.appointment.model import Appointment
from clinic.domain.appointment.ports import AppointmentFilter
from clinic.domain.appointment.use_cases import (
    FindAppointment,
    FindFinishedEvent,
    FinishAppointment,
    ListAppointments,
    ListLateAppointments,
    RepublishFinished,
    StartAppointment,
    TraceAppointment,
)
from clinic.domain.errors import Conflict, NotFound, Refused, Unavailable
from clinic.domain.events import from_message, to_message
from clinic.domain.messaging.messages import Message, PublicationStatus, PublishResult
from clinic.domain.money import Money
from clinic.domain.tracing import Step, Trace
from clinic.testing.builders import (
    ONE_O_CLOCK,
    TWO_O_CLOCK,
    RecordedTelemetry,
    StandingClock,
    a_message,
    an_appointment,
)
from clinic.testing.outbox import hand_over, published


class Slow(MemoryAppointments):
    """Lets others in between a load and its save, as a store with a server behind it does."""

    async def get(self, appointment_id: UUID) -> Appointment:
        found = await super().get(appointment_id)
        await asyncio.sleep(0)
        return found


class Busy(MemoryAppointments):
    """Somebody else saves first, so many times."""

    rivals = 0

    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        if self.rivals:
            self.rivals -= 1
            await super().save(await self.get(appointment.id))
        return await super().save(appointment, *events)


class Forgetful(MemoryAppointments):
    """Keeps what it is given, and loses its first answer."""

    forgetful = True

    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        kept = await super().save(appointment, *events)
        if self.forgetful:
            self.forgetful = False
            raise Unavailable("who knows")
        return kept


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


async def only_fact(store: MemoryAppointments) -> Message:
    """The one unpublished event; there is no other."""
    (message,) = await hand_over(store, 1)
    await store.confirm(published(message))
    assert await store.oldest() is None
    return message


async def test_an_appointment_starts_now_at_the_clinics_price(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    id_ = uuid4()
    physician = uuid4()
    patient = uuid4()
    started = await StartAppointment(store, clock, lambda: id_, Money("123.45"))(physician, patient)
    assert started == Appointment(
        id=id_, physician_id=physician, patient_id=patient, price=Money("123.45"), start=ONE_O_CLOCK
    )
    assert await FindAppointment(store)(id_) == started
    assert await store.oldest() is None


async def test_a_start_repeated_with_its_key_is_the_first_at_the_first_price(clock: StandingClock) -> None:
    store, people = MemoryAppointments(clock, 3), (uuid4(), uuid4())
    first = await StartAppointment(store, clock, uuid4, Money("123.45"))(*people, "key")
    clock.move(hours=1)
    start = StartAppointment(store, clock, uuid4, Money("200.00"))
    assert await start(*people, "key") == first
    assert (await start(*people, "another")).price == Money("200.00")
    for others in ((people[0], uuid4()), (uuid4(), people[1])):
        with pytest.raises(Refused) as refused:
            await start(*others, "key")
        assert refused.value.code == "key-reused"
    assert len(await store.page(AppointmentFilter(), 10)) == 2


async def test_a_finish_is_stored_with_its_event(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    await store.add(started := an_appointment())
    clock.move(hours=1)
    finished = await FinishAppointment(store, clock, RecordedTelemetry())(started.id)
    assert finished.end == TWO_O_CLOCK
    assert await store.get(started.id) == finished
    event = from_message(await only_fact(store))
    assert event
    assert (event.appointment_id, event.start, event.end) == (started.id, ONE_O_CLOCK, TWO_O_CLOCK)


async def test_finishing_again_gives_the_first_end_and_no_second_event(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    await store.add(started := an_appointment())
    finish = FinishAppointment(store, clock, RecordedTelemetry())
    first = await finish(started.id)
    clock.move(hours=1)
    assert await finish(started.id) == first
    await only_fact(store)


async def test_fifty_finishes_at_once_make_one_event(clock: StandingClock) -> None:
    store = Slow(clock, 3)
    await store.add(started := an_appointment())
    finish = FinishAppointment(store, clock, RecordedTelemetry())
    answers = await asyncio.gather(*(finish(started.id) for _ in range(50)))
    assert answers == [await store.get(started.id)] * 50
    await only_fact(store)


async def test_with_a_clock_that_is_behind_the_end_is_the_start(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    await store.add(started := an_appointment())
    clock.move(hours=-1)
    assert (await FinishAppointment(store, clock, RecordedTelemetry())(started.id)).end == ONE_O_CLOCK


async def test_a_finish_tries_again_where_somebody_saved_first(clock: StandingClock) -> None:
    store = Busy(clock, 3)
    await store.add(started := an_appointment())
    store.rivals = 4
    assert (await FinishAppointment(store, clock, RecordedTelemetry())(started.id)).end == ONE_O_CLOCK
    await only_fact(store)


async def test_a_finish_that_never_gets_its_turn_says_so_and_keeps_nothing(clock: StandingClock) -> None:
    store = Busy(clock, 3)
    await store.add(started := an_appointment())
    store.rivals = 100
    with pytest.raises(Conflict, match="try again"):
        await FinishAppointment(store, clock, RecordedTelemetry())(started.id)
    assert (await store.get(started.id)).end is None
    assert await store.oldest() is None


async def test_repeating_a_finish_whose_outcome_was_unknown_is_safe(clock: StandingClock) -> None:
    store = Forgetful(clock, 3)
    await store.add(started := an_appointment())
    finish = FinishAppointment(store, clock, RecordedTelemetry())
    with pytest.raises(Unavailable):
        await finish(started.id)
    clock.move(hours=1)
    assert (await finish(started.id)).end == ONE_O_CLOCK
    await only_fact(store)


async def test_an_unknown_appointment_is_not_found(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    with pytest.raises(NotFound):
        await FinishAppointment(store, clock, RecordedTelemetry())(uuid4())
    with pytest.raises(NotFound):
        await FindAppointment(store)(uuid4())


async def test_appointments_are_listed_a_page_at_a_time(clock: StandingClock) -> None:
    store, physician = MemoryAppointments(clock, 3), uuid4()
    mine = [an_appointment(id=UUID(int=number), physician_id=physician) for number in (3, 2, 1)]
    for each in [*mine, an_appointment()]:
        await store.add(each)
    listed = ListAppointments(store)
    assert list(await listed(AppointmentFilter(physician_id=physician), 2)) == mine[:2]
    assert list(await listed(AppointmentFilter(physician_id=physician), 2, mine[1].id)) == mine[2:]


async def a_finished_one(store: MemoryAppointments) -> Appointment:
    """From one to two o'clock, its event in the outbox."""
    await store.add(started := an_appointment())
    return await FinishAppointment(store, lambda: TWO_O_CLOCK, RecordedTelemetry())(started.id)


async def test_what_is_late_to_be_published_is_listed_by_page_the_longest_first(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    late = ListLateAppointments(store, store, clock)
    waiting = list[Appointment]()
    for _ in range(3):
        waiting.append(await a_finished_one(store))
        clock.move(seconds=10)

    assert [found for _, found in await late(10, 5)] == waiting[:2]  # the third: for ten seconds, not more
    ((place, first),) = await late(5, 1)
    assert first == waiting[0]
    assert [found for _, found in await late(5, 5, place)] == waiting[1:]
    assert await late(31, 5) == []


async def test_an_event_in_the_outbox_that_is_about_nobody_hides_no_other(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    await store.add(some := an_appointment())
    nobodys = [a_message(subject=subject) for subject in ("nobody's", str(uuid4()))]
    await store.save(some, *nobodys)
    finished = await a_finished_one(store)
    clock.move(seconds=10)
    found = [found for _, found in await ListLateAppointments(store, store, clock)(5, 5)]
    assert sorted(map(str, found)) == sorted(map(str, [None, None, finished]))


async def test_the_event_of_a_finished_one_is_found_with_its_publication_status(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    finished, find = await a_finished_one(store), FindFinishedEvent(store, store)
    assert await find(finished.id) == (finished.finished_event, PublicationStatus(ONE_O_CLOCK))
    await store.confirm(
        [PublishResult(to_message(finished.finished_event), "log/1", TWO_O_CLOCK)]
        if finished.finished_event
        else []
    )
    assert await find(finished.id) == (
        finished.finished_event,
        PublicationStatus(ONE_O_CLOCK, TWO_O_CLOCK, "log/1"),
    )


async def test_there_is_no_event_of_what_is_not_finished_or_not_known(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    await store.add(started := an_appointment())
    find = FindFinishedEvent(store, store)
    assert await find(started.id) is None
    assert await find(uuid4()) is None


async def test_republishing_saves_the_very_same_event(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    finished = await a_finished_one(store)
    first = await only_fact(store)
    await RepublishFinished(store, store)(finished.id)
    assert await only_fact(store) == first
    assert (await store.get(finished.id)).finished_event == finished.finished_event


async def test_what_waits_in_the_outbox_is_not_published_twice(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    finished = await a_finished_one(store)
    await RepublishFinished(store, store)(finished.id)
    assert await store.get(finished.id) == finished
    await only_fact(store)


async def test_republishing_tries_again_where_somebody_saved_first(clock: StandingClock) -> None:
    store = Busy(clock, 3)
    await store.add(restored := an_appointment(end=TWO_O_CLOCK))
    store.rivals = 4
    await RepublishFinished(store, store)(restored.id)
    await only_fact(store)
    store.rivals = 100
    with pytest.raises(Conflict, match="try again"):
        await RepublishFinished(store, store)(restored.id)


async def test_there_is_no_event_to_republish_of_what_is_not_finished(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    await store.add(started := an_appointment())
    with pytest.raises(Refused, match="not finished"):
        await RepublishFinished(store, store)(started.id)
    with pytest.raises(NotFound):
        await RepublishFinished(store, store)(uuid4())
    assert await store.oldest() is None


async def test_a_trace_shows_each_step_and_what_is_waited_for(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    await store.add(started := an_appointment())
    trace = TraceAppointment(store, store)
    steps = [Step(event="started", at=ONE_O_CLOCK)]
    assert await trace(started.id) == Trace(steps, "to be finished", "nobody has finished it yet")

    clock.move(hours=1)
    await FinishAppointment(store, clock, RecordedTelemetry())(started.id)
    steps += [Step(event="finished", at=TWO_O_CLOCK), Step(event="saved", at=TWO_O_CLOCK)]
    waiting = await trace(started.id)
    assert (waiting.steps, waiting.waits_for) == (steps, "to be published")

    (claimed,) = await store.claim(1)
    await store.confirm([PublishResult(claimed.message, "log/1", TWO_O_CLOCK)])
    steps.append(Step(event="published", at=TWO_O_CLOCK, position="log/1"))
    assert await trace(started.id) == Trace(steps, None, "its event is published")


async def test_a_trace_of_an_unsaved_event_names_the_repair(clock: StandingClock) -> None:
    store = MemoryAppointments(clock, 3)
    await store.add(restored := an_appointment(end=TWO_O_CLOCK))
    trace = await TraceAppointment(store, store)(restored.id)
    assert trace.waits_for == "a person"
    assert "clinic audit --repair" in trace.explanation
    with pytest.raises(NotFound):
        await TraceAppointment(store, store)(uuid4())
