"""The consumer, with a crash at each step: what arrived is charged once or dead-lettered, never lost."""

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import uniform
from time import monotonic
from typing import Any, Literal

import pytest
from msgspec.structs import replace

from clinic.adapters import cloudevents
from clinic.adapters.memory.charges import MemoryCharges
from clinic.adapters.memory.dead_letters import MemoryDeadLetters
from clinic.adapters.memory.transport import MemoryLog, MemoryPublisher, MemorySubscription
from clinic.domain.errors import Misconfigured, Refused, Unavailable
from clinic.domain.events import FINISHED, FINISHED_V1, AppointmentFinished, from_message, to_message
from clinic.domain.financial.ports import ChargeFilter
from clinic.domain.financial.pricing import POLICIES
from clinic.domain.financial.use_cases import ChargeAppointments
from clinic.domain.messaging.consumer import Consumer
from clinic.domain.messaging.dead_letters import MAX_TEXT, MAX_VALUE, DeadLetter, DeadLetterFilter, letter_of
from clinic.domain.messaging.messages import Delivery, Event, Message, Received
from clinic.domain.messaging.ports import Monotonic, Sleep, Subscription
from clinic.domain.messaging.retry import STALLED_AFTER
from clinic.domain.money import Money
from clinic.testing.builders import (
    A_DAY,
    NO_FAULT,
    ONE_O_CLOCK,
    TWO_O_CLOCK,
    Asleep,
    Died,
    Fault,
    FragileDeadLetters,
    Hang,
    NoWait,
    RecordedTelemetry,
    StandingClock,
    StandingMonotonic,
    a_delivery,
    a_message,
    an_event,
    now,
    running,
)

UNREADABLE = a_message(id="unreadable", data=b"{")
REFUSED = to_message(an_event(price=Money("9999999999999.99")))
"""It can be read, and its charge would be beyond all money."""
OTHER = a_message(id="other", type="clinic.appointment.started.v1")
EMPTY = a_message(id="empty", data=None)
STEPS = ["receive", "handle", "add", "acknowledge"]


class FragileSubscription(Subscription):
    def __init__(self, subscription: Subscription, fault: Fault, acknowledged: asyncio.Event) -> None:
        self._subscription = subscription
        self._fault = fault
        self._acknowledged = acknowledged

    async def receive(self) -> Sequence[Delivery]:
        return await self._fault("receive", self._subscription.receive)

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        await self._fault("acknowledge", lambda: self._subscription.acknowledge(batch))
        self._acknowledged.set()


class World:
    """A log, charges and dead letters that outlive each consumer between them."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.charges = MemoryCharges()
        self.letters = MemoryDeadLetters()
        self.telemetry = RecordedTelemetry()
        self.sleep = NoWait()
        self.clock = StandingClock(TWO_O_CLOCK)
        self._acknowledged = asyncio.Event()
        self.charge = ChargeAppointments(self.charges, POLICIES["hours-begun"], self.clock, self.telemetry)

    async def publish(self, *messages: Message) -> None:
        await MemoryPublisher(self.log, now).publish(messages)

    def consumer(
        self, fault: Fault = NO_FAULT, clock: Monotonic = monotonic
    ) -> Consumer[AppointmentFinished]:
        async def handle(batch: Sequence[Received[AppointmentFinished]]) -> None:
            await fault("handle", lambda: self.charge(batch))

        return self.consumer_of(from_message, handle, fault=fault, clock=clock)

    def consumer_of(
        self,
        read: Callable[[Message], Event | None],
        handle: Callable[[Sequence[Received[Event]]], Awaitable[object]],
        sleep: Sleep | None = None,
        fault: Fault = NO_FAULT,
        clock: Monotonic = monotonic,
    ) -> Consumer[Event]:
        return Consumer(
            FragileSubscription(
                MemorySubscription(self.log, "financial", self.clock), fault, self._acknowledged
            ),
            read,
            handle,
            FragileDeadLetters(self.letters, fault),
            sleep or self.sleep,
            self.telemetry,
            clock,
            uniform,
        )

    async def acknowledged(self, count: int) -> None:
        """Return when so many messages are behind the group."""
        while self.log.offsets.get("financial", 0) < count:
            self._acknowledged.clear()
            await self._acknowledged.wait()

    async def charged(self) -> set[str]:
        return {str(charge.appointment_id) for charge in await self.charges.page(ChargeFilter(), 1000)}

    async def dead_lettered(self) -> dict[str, DeadLetter]:
        return {letter.message_id: letter for letter in await self.letters.page(DeadLetterFilter(), 1000)}


async def test_each_finished_appointment_is_charged_and_acknowledged() -> None:
    world, messages = World(), [a_message() for _ in range(3)]
    await world.publish(*messages)
    async with running(world.consumer().run()):
        await world.acknowledged(3)
    assert await world.charged() == {message.subject for message in messages}
    charge = (await world.charges.page(ChargeFilter(), 1))[0]
    assert (charge.origin.position.partition("/")[0], charge.origin.attempts) == (world.log.id, 1)
    assert await world.dead_lettered() == {}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clinic.domain.messaging.consumer.PART_SIZE", 2)


@pytest.mark.usefixtures("small_parts")
async def test_two_parts_of_a_large_batch_are_under_way_at_once_and_a_keys_in_order() -> None:
    world, again = World(), [a_message(id=f"again {number}", key="again") for number in range(20)]
    messages = [*(a_message() for _ in range(20)), *again]
    parts: list[list[str]] = []
    under_way = [0]
    two = asyncio.Event()

    async def handle(part: Sequence[Received[str]]) -> None:
        parts.append([received.event for received in part])
        under_way[0] += 1
        assert under_way[0] <= 2
        if under_way[0] == 2:
            two.set()
        await two.wait()
        under_way[0] -= 1

    await world.publish(*messages)
    async with running(world.consumer_of(lambda message: message.id, handle).run()):
        await world.acknowledged(len(messages))
    assert len(parts) > 1
    (of_the_key,) = [part for part in parts if again[0].id in part]
    assert [event for event in of_the_key if event.startswith("again")] == [each.id for each in again]


@pytest.mark.usefixtures("small_parts")
async def test_where_a_part_fails_the_others_end_and_the_whole_batch_comes_again() -> None:
    world, messages = World(), [a_message() for _ in range(20)]
    failed: list[str] = []
    handled: list[str] = []
    handled_by_then: list[set[str]] = []

    async def handle(part: Sequence[Received[str]]) -> None:
        events = [received.event for received in part]
        if not failed:
            failed.extend(events)
            raise Unavailable("the store does not answer")
        for _ in range(20):  # turns of the loop: long after the failure
            await asyncio.sleep(0)
        handled.extend(events)

    async def pause(_: float) -> None:
        handled_by_then.append(set(handled))

    await world.publish(*messages)
    async with running(world.consumer_of(lambda message: message.id, handle, pause).run()):
        await world.acknowledged(len(messages))
    ids = {message.id for message in messages}
    assert handled_by_then == [ids - set(failed)]
    assert set(handled) == ids


@pytest.mark.usefixtures("small_parts")
async def test_a_defect_in_one_part_is_not_hidden_by_an_outage_in_another() -> None:
    world = World()
    parts: list[object] = []

    async def handle(part: Sequence[Received[str]]) -> None:
        parts.append(part)
        raise Unavailable("the store does not answer") if len(parts) == 1 else ZeroDivisionError

    await world.publish(*(a_message() for _ in range(20)))
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(world.consumer_of(lambda message: message.id, handle).run(), 10)


@pytest.mark.usefixtures("small_parts")
async def test_nothing_is_dead_lettered_before_every_part_is_handled() -> None:
    world, messages = World(), [a_message() for _ in range(20)]
    is_down = [True]

    async def handle(_: Sequence[Received[AppointmentFinished]]) -> None:
        if is_down:
            is_down.clear()
            raise Unavailable("the store does not answer")

    await world.publish(UNREADABLE, *messages)
    async with running(world.consumer_of(from_message, handle).run()):
        await world.acknowledged(len(messages) + 1)
    assert len(world.telemetry.named("dead-lettered")) == 1


async def test_unreadable_and_refused_events_are_dead_lettered_and_the_rest_is_charged() -> None:
    world, messages = World(), [a_message() for _ in range(6)]
    await world.publish(messages[0], UNREADABLE, *messages[1:4], REFUSED, *messages[4:])
    async with running(world.consumer().run()):
        await world.acknowledged(8)
    assert await world.charged() == {message.subject for message in messages}
    letters = await world.dead_lettered()
    assert set(letters) == {UNREADABLE.id, REFUSED.id}
    assert FINISHED_V1 in letters[UNREADABLE.id].reason
    assert "not a valid amount" in letters[REFUSED.id].reason
    assert [letters[each].position for each in (UNREADABLE.id, REFUSED.id)] == [
        f"{world.log.id}/{index}" for index in (1, 5)
    ]
    assert [event["event_id"] for event in world.telemetry.named("dead-lettered")] == [
        UNREADABLE.id,
        REFUSED.id,
    ]


@pytest.mark.parametrize("step", ["handle", "add", "acknowledge"])
async def test_a_step_that_hangs_is_a_problem_until_it_ends(step: str) -> None:
    world = World()
    hang = Hang(step)
    clock = StandingMonotonic()
    await world.publish(a_message(), UNREADABLE)
    consumer = world.consumer(hang, clock)
    problems = [consumer.problem]
    async with running(consumer.run()):
        await hang.reached.wait()
        problems.append(consumer.problem)
        clock.seconds += STALLED_AFTER + 7
        problems += [consumer.problem, consumer.problem]
        hang.released.set()
        await world.publish(a_message())
        await world.acknowledged(3)
        problems.append(consumer.problem)
    stalled = "the attempt under way has not ended for 17 s"
    assert problems == [None, None, stalled, stalled, None]


async def test_a_dead_letter_holds_all_that_came() -> None:
    world = World()
    await world.publish(UNREADABLE)
    async with running(world.consumer().run()):
        await world.acknowledged(1)
    (listed,) = await world.letters.page(DeadLetterFilter(), 10)
    letter = await world.letters.get(listed.position)
    assert (letter.key, letter.value, letter.length) == (UNREADABLE.key.encode(), b"{", 1)
    assert ("ce_id", b"unreadable") in letter.headers
    assert letter.sha256 == hashlib.sha256(b"{").hexdigest()
    assert (letter.attempts, letter.first_seen, letter.last_seen) == (1, TWO_O_CLOCK, TWO_O_CLOCK)
    assert (letter.about, letter.type) == (UNREADABLE.subject, FINISHED_V1)
    assert letter.published_at == world.log.entries[0][0]
    assert (letter.state, letter.history) == ("waiting", ())


async def test_a_dead_letter_is_about_its_subject_or_else_its_key_and_not_more_than_a_name() -> None:
    world = World()
    await world.publish(
        a_message(data=b"{", subject="the subject", key="the key"),
        a_message(data=b"{", subject="", key="the key"),
        a_message(data=b"{", subject="s" * 300, type=f"{FINISHED_V1}.{'t' * 300}"),
    )
    async with running(world.consumer().run()):
        await world.acknowledged(3)
    letters = await world.letters.page(DeadLetterFilter(), 10)
    assert [letter.about for letter in letters] == ["the subject", "the key", "s" * 200]
    assert len(letters[2].type) == 200


def refused(**changes: Any) -> Refused:
    """Why this message cannot be read."""
    with pytest.raises(Refused) as refusal:
        from_message(a_message(**changes))
    return refusal.value


def with_data(**changes: Any) -> bytes:
    data = json.loads(to_message(an_event()).data or b"")
    return json.dumps({name: value for name, value in (data | changes).items() if value != "none"}).encode()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"type": ""}, "type-missing"),
        ({"type": f"{FINISHED}.v2"}, "type-unknown"),
        ({"data": b"{"}, "data-unreadable:$"),
        ({"data": b"\xff"}, "data-unreadable:$"),
        ({"data": b"[]"}, "data-unreadable:$"),
        ({"data": with_data(price=[])}, "data-unreadable:$.price"),
        ({"data": with_data(end=None)}, "data-unreadable:$.end"),
        ({"data": with_data(patient_id="`$.price`")}, "data-unreadable:$.patient_id"),
        ({"data": with_data(start="none")}, "data-incomplete:$.start"),
        ({"data": with_data(price="0.001")}, "amount-invalid:$.price"),
        ({"data": with_data(end="2020-12-01T12:00:00Z", start="2020-12-01T13:00:00Z")}, "ends-before-start"),
        ({"data": with_data(price="2_00")}, "amount-invalid:$.price"),
        ({"data": with_data(start="0001-01-01T00:00:00+23:59")}, "date-invalid:$.start"),
        ({"data": with_data(end="0001-01-01T00:00:00+23:59")}, "date-invalid:$.end"),
    ],
    ids=range(14),
)
def test_a_refusal_carries_a_code_that_says_what_kind_it_is(changes: dict[str, Any], code: str) -> None:
    assert refused(**changes).code == code


async def grouped(*messages: Message) -> dict[str, int]:
    """How many letters each group has, once these messages have arrived."""
    world = World()
    await world.publish(*messages)
    async with running(world.consumer().run()):
        await world.acknowledged(len(messages))
    return {each.group: each.waiting for each in await world.letters.groups()}


async def test_letters_of_one_code_and_type_make_one_group_whatever_they_say() -> None:
    amounts = ["0.001", "1e99", "NaN", "-1"]
    groups = await grouped(*(a_message(data=with_data(price=each)) for each in amounts))
    assert list(groups.values()) == [4]
    assert all(re.fullmatch("[0-9a-f]{8}", each) for each in groups)


@pytest.mark.parametrize("odd", ["v2", "v2'", 'v2"', "v'2' \"x\"", "v2\n'\"", "x" * 100_000, "0.12.3"])
async def test_versions_that_are_not_known_make_one_group_whatever_they_are_called(odd: str) -> None:
    assert list(
        (await grouped(*(a_message(type=f"{FINISHED}.{each}") for each in ("vX", odd)))).values()
    ) == [2]


async def test_refusals_of_different_kinds_make_different_groups() -> None:
    odd = [with_data(price="none"), with_data(end="none"), with_data(price=[]), with_data(end=[]), b"{"]
    assert (
        list((await grouped(a_message(type=""), *(a_message(data=each) for each in odd))).values()) == [1] * 6
    )


async def test_a_dead_letter_keeps_the_code_of_its_refusal() -> None:
    world = World()
    await world.publish(UNREADABLE, REFUSED)
    async with running(world.consumer().run()):
        await world.acknowledged(2)
    letters = await world.dead_lettered()
    assert {each.code for each in letters.values()} == {"data-unreadable:$", "amount-invalid"}


async def test_what_foreign_producers_wrote_is_cut_in_what_is_logged() -> None:
    world, huge = World(), "x" * 100_000
    await world.publish(a_message(type=huge), a_message(id=huge, subject=huge, type=f"{FINISHED}.{huge}"))
    async with running(world.consumer().run()):
        await world.acknowledged(2)
        await world.telemetry.seen("skipped")
    said = [str(value) for _, details in world.telemetry for value in details.values()]
    assert max(map(len, said)) <= MAX_TEXT
    assert len(said) > 5


class MovingSleep(NoWait):
    """Time passes at each sleep."""

    def __init__(self, clock: StandingClock) -> None:
        super().__init__()
        self._clock = clock

    async def __call__(self, seconds: float) -> None:
        self._clock.move(seconds=1)
        await super().__call__(seconds)


async def test_an_arrival_that_is_tried_again_and_again_counts_once() -> None:
    world = World()
    world.sleep = MovingSleep(world.clock)
    await world.publish(UNREADABLE)
    fault = Fault("acknowledge", "before", Unavailable("storm"), times=30)
    async with running(world.consumer(fault).run()):
        await world.acknowledged(1)
    (letter,) = (await world.dead_lettered()).values()
    assert (len(world.sleep.waited), letter.attempts) == (30, 1)


async def test_a_dead_letter_keeps_one_mebibyte_with_the_length_and_digest_of_all() -> None:
    world, value = World(), b"x" * (MAX_VALUE + 1)
    await world.publish(a_message(data=value))
    async with running(world.consumer().run()):
        await world.acknowledged(1)
    (listed,) = await world.letters.page(DeadLetterFilter(), 10)
    letter = await world.letters.get(listed.position)
    assert MAX_VALUE == 1024 * 1024
    assert (letter.value, letter.length, letter.sha256) == (
        value[:-1],
        len(value),
        hashlib.sha256(value).hexdigest(),
    )


def test_the_digest_of_a_dead_letter_is_the_datas_whatever_the_extensions_are() -> None:
    headers = [("content-type", b"application/cloudevents+json")]
    letters = []
    for recorded in ("2020-12-01T13:00:00.001Z", "2020-12-02T13:00:00.001Z"):
        value = b'{"type": "t", "recordedtime": "%s", "data": {"price": 1}}' % recorded.encode()
        message = cloudevents.message(b"key", headers, value)
        delivery = replace(a_delivery(message), headers=tuple(headers), value=value)
        letters.append(letter_of(delivery, Refused("?")))
    assert len({letter.value for letter in letters}) == 2
    assert {letter.sha256 for letter in letters} == {hashlib.sha256(b'{"price": 1}').hexdigest()}


async def test_other_events_and_empty_messages_are_skipped_and_counted() -> None:
    world = World()
    await world.publish(OTHER, EMPTY)
    async with running(world.consumer().run()):
        await world.acknowledged(2)
    assert (await world.charged(), await world.dead_lettered()) == (set(), {})
    assert world.telemetry.named("skipped") == [
        {"type": "clinic.appointment.started.v1", "position": f"{world.log.id}/0"},
        {"type": FINISHED_V1, "position": f"{world.log.id}/1"},
    ]


async def test_an_unknown_version_is_dead_lettered_not_skipped() -> None:
    world = World()
    await world.publish(a_message(id="v2", type="clinic.appointment.finished.v2"))
    async with running(world.consumer().run()):
        await world.acknowledged(1)
    assert set(await world.dead_lettered()) == {"v2"}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_consumer_that_dies_at_any_step_loses_and_doubles_nothing(
    step: str, when: Literal["before", "after"]
) -> None:
    world, messages = World(), [a_message() for _ in range(3)]
    await world.publish(messages[0], UNREADABLE, *messages[1:])
    with pytest.raises(Died):
        await world.consumer(Fault(step, when, Died())).run()
    seen = {charge.appointment_id: charge for charge in await world.charges.page(ChargeFilter(), 10)}
    world.clock.move(hours=1)
    async with running(world.consumer().run()):
        await world.acknowledged(4)
    kept = {charge.appointment_id: charge for charge in await world.charges.page(ChargeFilter(), 10)}
    assert await world.charged() == {message.subject for message in messages}
    assert kept == kept | seen  # what was charged before the crash stays as it was
    assert set(await world.dead_lettered()) == {UNREADABLE.id}


async def test_a_crash_between_charging_and_acknowledging_charges_nothing_again() -> None:
    world, message = World(), a_message()
    await world.publish(message)
    with pytest.raises(Died):
        await world.consumer(Fault("acknowledge", "before", Died())).run()
    (first,) = await world.charges.page(ChargeFilter(), 10)
    world.clock.move(hours=1)
    async with running(world.consumer().run()):
        await world.acknowledged(1)
    assert list(await world.charges.page(ChargeFilter(), 10)) == [first]
    assert [name for name, _ in world.telemetry] == ["charged", "already charged"]


async def test_a_letter_that_arrives_again_gains_attempts_and_keeps_its_first_sight() -> None:
    world = World()
    world.clock.moment = ONE_O_CLOCK
    await world.publish(UNREADABLE)
    with pytest.raises(Died):
        await world.consumer(Fault("acknowledge", "before", Died())).run()
    world.clock.move(hours=1)
    async with running(world.consumer().run()):
        await world.acknowledged(1)
    (listed,) = await world.letters.page(DeadLetterFilter(), 10)
    letter = await world.letters.get(listed.position)
    assert (letter.attempts, letter.first_seen, letter.last_seen) == (2, ONE_O_CLOCK, TWO_O_CLOCK)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
async def test_bad_weather_at_any_step_is_waited_out_and_makes_no_dead_letters(
    step: str, when: Literal["before", "after"]
) -> None:
    world, messages = World(), [a_message() for _ in range(3)]
    await world.publish(messages[0], UNREADABLE, *messages[1:])
    consumer = world.consumer(Fault(step, when, Unavailable("storm"), times=7))
    async with running(consumer.run()):
        await world.telemetry.seen("consumer waits", 7)
        await world.publish(OTHER)
        await world.acknowledged(5)
        await world.telemetry.seen("skipped")
    assert await world.charged() == {message.subject for message in messages}
    assert set(await world.dead_lettered()) == {UNREADABLE.id}
    assert world.telemetry.named("consumer waits") == [{"reason": "storm"}] * 7
    assert len(world.sleep.waited) == 7


async def test_it_never_gives_up_on_the_weather_and_counts_its_attempts() -> None:
    world, message = World(), a_message()
    await world.publish(message)
    async with running(world.consumer(Fault("handle", "before", Unavailable("storm"), times=300)).run()):
        await world.acknowledged(1)
    (charge,) = await world.charges.page(ChargeFilter(), 10)
    assert charge.origin.attempts == 301
    assert len(world.sleep.waited) == 300
    assert max(world.sleep.waited) <= 5


async def test_a_problem_is_named_until_something_succeeds() -> None:
    world = World()
    await world.publish(a_message())
    consumer = world.consumer(Fault("handle", "before", Unavailable("storm"), times=2))
    async with running(consumer.run()):
        await world.telemetry.seen("consumer waits")
        assert consumer.problem == "storm"
        await world.acknowledged(1)
        await world.publish(a_message())
        await world.acknowledged(2)
        assert consumer.problem is None


async def test_a_failure_is_not_over_because_time_has_passed() -> None:
    world, clock = World(), StandingMonotonic()
    world.sleep = Asleep()
    await world.publish(a_message())
    consumer = world.consumer(Fault("handle", "before", Unavailable("storm")), clock)
    async with running(consumer.run()):
        await world.telemetry.seen("consumer waits")
        clock.seconds += A_DAY
        assert consumer.problem == "storm"


async def test_a_wrong_set_up_is_no_messages_fault_and_ends_it() -> None:
    world = World()
    await world.publish(a_message())
    consumer = world.consumer(Fault("handle", "before", Misconfigured("no such table")))
    with pytest.raises(Misconfigured, match="no such table"):
        await asyncio.wait_for(consumer.run(), 10)
    assert await world.dead_lettered() == {}


async def test_a_cancelled_consumer_ends_its_attempt_first() -> None:
    world = World()
    await world.publish(a_message())
    begun, go_on = asyncio.Event(), asyncio.Event()
    consumer = slow(world, begun, go_on)
    await begun.wait()
    consumer.cancel()
    await asyncio.sleep(0)
    assert not consumer.done()
    go_on.set()
    await asyncio.wait([consumer])
    assert consumer.cancelled()
    assert world.log.offsets == {"financial": 1}
    assert len(await world.charged()) == 1


async def test_a_second_cancellation_is_immediate_and_loses_nothing() -> None:
    world = World()
    await world.publish(message := a_message())
    begun, go_on = asyncio.Event(), asyncio.Event()
    consumer = slow(world, begun, go_on)
    await begun.wait()
    consumer.cancel()
    await asyncio.sleep(0)
    consumer.cancel()
    with suppress(asyncio.CancelledError):
        await consumer
    assert await world.charged() == set()
    async with running(world.consumer().run()):
        await world.acknowledged(1)
    assert await world.charged() == {message.subject}


def slow(world: World, begun: asyncio.Event, go_on: asyncio.Event) -> asyncio.Task[None]:
    """A consumer whose use case waits until it is let go."""

    async def handle(batch: Sequence[Received[AppointmentFinished]]) -> None:
        begun.set()
        await go_on.wait()
        await world.charge(batch)

    subscription = MemorySubscription(world.log, "financial", now)
    consumer = Consumer(
        subscription,
        from_message,
        handle,
        world.letters,
        world.sleep,
        world.telemetry,
        monotonic,
        uniform,
    )
    return asyncio.create_task(consumer.run())


class Recovering(Subscription):
    """Fails, and then says that the log answers and has nothing."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.asked_again = asyncio.Event()
        self._asked = 0

    async def receive(self) -> Sequence[Delivery]:
        self._asked += 1
        if self._asked == 1:
            raise Unavailable("storm")
        if self._asked == 2:
            await self.answers.wait()
            return []
        self.asked_again.set()
        return await asyncio.Future()

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        raise AssertionError(f"{batch} was never handed over")


async def test_a_failure_of_the_log_is_over_when_the_log_answers_and_has_nothing() -> None:
    world, log = World(), Recovering()
    consumer = Consumer(
        log, from_message, world.charge, world.letters, world.sleep, world.telemetry, monotonic, uniform
    )
    async with running(consumer.run()):
        await world.telemetry.seen("consumer waits")
        assert consumer.problem == "storm"
        log.answers.set()
        await log.asked_again.wait()
        assert consumer.problem is None
