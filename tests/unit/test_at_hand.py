"""A finish without a load: what this process started is at hand, and the save says whether it is still so."""

import asyncio
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from clinic.adapters.memory.appointments import MemoryAppointments
from clinic.domain.appointment.model import Appointment
from clinic.domain.appointment.use_cases import FinishAppointment, StartAppointment
from clinic.domain.errors import ClinicError, NotFound, Unavailable
from clinic.domain.messaging.messages import Message
from clinic.domain.money import Money
from clinic.entrypoints.at_hand import AtHand
from clinic.testing.builders import TWO_O_CLOCK, RecordedTelemetry, StandingClock, an_appointment
from clinic.testing.outbox import hand_over


class Counting(MemoryAppointments):
    """Counts reads. A save can lose its answer, and each takes its time."""

    reads = 0
    is_lost = False

    async def get(self, appointment_id: UUID) -> Appointment:
        self.reads += 1
        return await super().get(appointment_id)

    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        await asyncio.sleep(0)
        saved = await super().save(appointment, *events)
        if self.is_lost:
            self.is_lost = False
            raise Unavailable("who knows")
        return saved

    async def restore(self, appointment: Appointment | None = None) -> None:
        """Go back to a backup that has this appointment, or nothing."""
        self._stored = {} if appointment is None else {appointment.id: appointment}


class Process:
    """One of those that serve a store: it starts and finishes."""

    def __init__(
        self, store: MemoryAppointments, kind: Callable[[MemoryAppointments], AtHand] = AtHand
    ) -> None:
        self.at_hand, self.clock = kind(store), StandingClock()
        self._start = StartAppointment(self.at_hand, self.clock, uuid4, Money("200.00"))
        self.finish = FinishAppointment(self.at_hand, self.clock, RecordedTelemetry())

    async def start(self, key: str | None = None, people: tuple[UUID, UUID] | None = None) -> Appointment:
        return await self._start(*(people or (uuid4(), uuid4())), key)


@pytest.fixture
def store() -> Counting:
    return Counting(StandingClock(), 3)


async def test_a_finish_of_what_this_process_started_loads_nothing(store: Counting) -> None:
    process = Process(store)
    finished = await process.finish((await process.start()).id)
    assert (store.reads, process.at_hand.given) == (0, 1)
    assert await store.get(finished.id) == finished
    assert len(await hand_over(store, 1)) == 1


async def test_a_repeated_finish_reads_the_store(store: Counting) -> None:
    process = Process(store)
    finished = await process.finish((await process.start()).id)
    moved = replace(finished, physician_id=uuid4())
    await store.restore(moved)
    assert await process.finish(finished.id) == moved


async def test_of_two_finishes_by_two_processes_both_answer_the_first_end(store: Counting) -> None:
    one, other = Process(store), Process(store)
    started = await one.start()
    one.clock.move(hours=1)
    first = await other.finish(started.id)
    assert await one.finish(started.id) == first
    assert first.end != TWO_O_CLOCK
    assert len(await hand_over(store, 1)) == 1


async def test_of_many_finishes_at_one_moment_all_answer_one_end(store: Counting) -> None:
    process = Process(store)
    started = await process.start()
    finishes = [process.finish(started.id) for _ in range(5)]
    assert len({finished.end for finished in await asyncio.gather(*finishes)}) == 1
    assert len(await hand_over(store, 1)) == 1


async def test_a_restored_backup_decides_what_a_finish_finds(store: Counting) -> None:
    process = Process(store)
    lost, finished = await process.start(), await process.start()
    await store.restore(other := replace(finished, end=TWO_O_CLOCK, version=2))
    assert await process.finish(finished.id) == other
    with pytest.raises(NotFound):
        await process.finish(lost.id)


async def test_an_entry_is_dropped_before_its_save(store: Counting) -> None:
    process = Process(store)
    started = await process.start()
    store.is_lost = True
    with pytest.raises(Unavailable):
        await process.finish(started.id)
    process.clock.move(hours=1)
    assert await process.finish(started.id) == await store.get(started.id)
    assert len(await hand_over(store, 1)) == 1


async def test_only_the_newest_are_at_hand(store: Counting) -> None:
    process = Process(store, lambda store: AtHand(store, limit=2))
    started = [await process.start() for _ in range(5)]
    for appointment in started:
        await process.finish(appointment.id)
    assert (store.reads, process.at_hand.given) == (3, 2)


async def test_what_another_process_started_under_the_key_is_not_at_hand(store: Counting) -> None:
    one, other, people = Process(store), Process(store), (uuid4(), uuid4())
    first = await one.start("key", people)
    assert await other.start("key", people) == first
    await other.finish(first.id)
    assert (store.reads, other.at_hand.given) == (1, 0)


async def test_what_was_not_added_for_sure_is_not_at_hand() -> None:
    class Unsure(Counting):
        async def add(self, appointment: Appointment, *, once: bytes = b"") -> Appointment:
            await super().add(appointment, once=once)
            raise Unavailable("who knows")

    store = Unsure(StandingClock(), 3)
    at_hand, new = AtHand(store), an_appointment()
    with pytest.raises(Unavailable):
        await at_hand.add(new)
    assert await at_hand.get(new.id) == new
    assert store.reads == 1


class NeverForgets(AtHand):
    async def get(self, appointment_id: UUID) -> Appointment:
        return self._open.get(appointment_id) or await self._appointments.get(appointment_id)


class ForgetsAfterTheSave(NeverForgets):
    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        saved = await super().save(appointment, *events)
        self._open.pop(appointment.id, None)
        return saved


class AnswersFromMemory(AtHand):
    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        self._open[appointment.id] = saved = await super().save(appointment, *events)
        return saved


BROKEN = {
    NeverForgets: test_of_two_finishes_by_two_processes_both_answer_the_first_end,
    ForgetsAfterTheSave: test_an_entry_is_dropped_before_its_save,
    AnswersFromMemory: test_a_repeated_finish_reads_the_store,
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_broken_memory_is_caught(
    broken: type[AtHand], store: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Process.__init__, "__defaults__", (broken,))
    with pytest.raises((AssertionError, ClinicError)):
        await BROKEN[broken](store)
