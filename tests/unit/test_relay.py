"""The relay, with a crash at each step: what was saved is published, again rather than never."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from random import uniform
from time import monotonic
from typing import Literal

import pytest
from msgspec.structs import replace
from support.processes import eventually

from clinic.adapters.memory.appointments import MemoryAppointments
from clinic.adapters.memory.transport import MemoryLog, MemoryPublisher
from clinic.domain.errors import Misconfigured, Refused, Unavailable
from clinic.domain.messaging.messages import ClaimedMessage, Message, PublicationStatus, PublishResult
from clinic.domain.messaging.ports import Monotonic, Outbox, Publisher, Waiting
from clinic.domain.messaging.relay import BATCH_SIZE, MAX_REST, Relay
from clinic.domain.messaging.retry import STALLED_AFTER, backoff
from clinic.testing.builders import (
    A_DAY,
    NO_FAULT,
    Asleep,
    Died,
    Fault,
    Hang,
    NoWait,
    RecordedTelemetry,
    StandingMonotonic,
    a_message,
    an_appointment,
    now,
    running,
)
from clinic.testing.outbox import LONG, saved

SHORT = 0.05


class FragileOutbox(Outbox):
    def __init__(self, outbox: Outbox, fault: Fault) -> None:
        self._outbox = outbox
        self._fault = fault

    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        return await self._fault("claim", lambda: self._outbox.claim(limit))

    async def confirm(self, published: Sequence[PublishResult]) -> None:
        await self._fault("confirm", lambda: self._outbox.confirm(published))

    async def waiting(
        self, limit: int, before: datetime | None = None, after: Waiting | None = None
    ) -> Sequence[Waiting]:
        return await self._outbox.waiting(limit, before, after)

    async def count(self, limit: int) -> int:
        return await self._outbox.count(limit)

    async def status(self, event: Message) -> PublicationStatus | None:
        return await self._outbox.status(event)


class FragilePublisher(Publisher):
    """Refuses batches with some of the messages in them, and is fragile."""

    def __init__(self, log: MemoryLog, fault: Fault) -> None:
        self._publisher = MemoryPublisher(log, now)
        self._fault = fault
        self.refused = set[str]()

    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        if self.refused.intersection(message.id for message in batch):
            raise Refused("it is too large")
        return await self._fault("publish", lambda: self._publisher.publish(batch))


class SlowPublisher(MemoryPublisher):
    """Takes so many seconds for a batch."""

    def __init__(self, log: MemoryLog, clock: StandingMonotonic, took: float) -> None:
        super().__init__(log, now)
        self._passing, self._took = clock, took
        self.batches: list[int] = []

    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        self._passing.seconds += self._took
        self.batches.append(len(batch))
        return await super().publish(batch)


class World:
    """An outbox and a log that outlive each relay between them."""

    def __init__(self, lease: float = SHORT) -> None:
        self.store = MemoryAppointments(now, lease)
        self.log = MemoryLog()
        self.telemetry = RecordedTelemetry()
        self.sleep = NoWait()

    def relay(
        self,
        fault: Fault = NO_FAULT,
        *,
        outbox: Outbox | None = None,
        publisher: Publisher | None = None,
        monotonic: Monotonic = monotonic,
    ) -> Relay:
        outbox = FragileOutbox(outbox or self.store, fault)
        publisher = publisher or FragilePublisher(self.log, fault)
        return Relay(outbox, publisher, self.sleep, self.telemetry, monotonic, uniform)

    @property
    def waits(self) -> list[float]:
        """The pauses before another try, without the rests after a batch."""
        return [seconds for seconds in self.sleep.waited if seconds > MAX_REST]

    @property
    def wait_for(self) -> list[str]:
        return [message.id for _, message in self.log.entries]


async def test_what_is_saved_is_published_and_confirmed() -> None:
    world = World(LONG)
    relay = world.relay()
    async with running(relay.run()):
        messages = [await saved(world.store) for _ in range(3)]
        await world.telemetry.seen("published", 3)
    assert world.wait_for == [message.id for message in messages]
    assert (await world.store.oldest(), relay.problem) == (None, None)
    expected = [
        {"event_id": each.id, "appointment_id": each.subject, "position": f"{world.log.id}/{i}"}
        for i, each in enumerate(messages)
    ]
    assert world.telemetry.named("published") == expected


@pytest.mark.parametrize(("took", "rest"), [(0.0, 0.0), (0.004, 0.004), (7.0, MAX_REST)])
async def test_after_a_batch_it_rests_as_long_as_that_took_so_that_others_gather(
    took: float, rest: float
) -> None:
    world, clock = World(LONG), StandingMonotonic()
    slow = SlowPublisher(world.log, clock, took)
    async with running(world.relay(publisher=slow, monotonic=clock).run()):
        for published in (1, 2):
            await saved(world.store)
            await world.telemetry.seen("published", published)
    assert world.sleep.waited[0] == pytest.approx(rest)


async def test_after_a_full_batch_it_does_not_rest() -> None:
    world, clock = World(LONG), StandingMonotonic()
    for _ in range(BATCH_SIZE + 1):
        await saved(world.store)
    slow = SlowPublisher(world.log, clock, 0.004)
    async with running(world.relay(publisher=slow, monotonic=clock).run()):
        await world.telemetry.seen("published", BATCH_SIZE + 1)
        await saved(world.store)
        await world.telemetry.seen("published", BATCH_SIZE + 2)
    assert slow.batches == [BATCH_SIZE, 1, 1]
    assert len(world.sleep.waited) <= 2, "after each of the small ones"


async def test_an_event_says_when_it_was_saved_each_time_and_its_data_stays_the_same() -> None:
    world = World(LONG)
    await world.store.add(started := an_appointment())
    message = a_message(subject=str(started.id))
    times = []
    async with running(world.relay().run()):
        for tellings in (1, 2):
            started = await world.store.save(started, message)
            await world.telemetry.seen("published", tellings)
            status = await world.store.status(message)
            assert status
            times.append(status.saved_at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z")
    sent = [replace(message, extensions=(*message.extensions, ("recordedtime", time))) for time in times]
    assert [each for _, each in world.log.entries] == sent


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["claim", "publish", "confirm"])
async def test_a_relay_that_dies_at_any_step_loses_nothing(
    step: str, when: Literal["before", "after"]
) -> None:
    world = World()
    messages = [await saved(world.store) for _ in range(3)]
    with pytest.raises(Died):
        await world.relay(Fault(step, when, Died())).run()
    messages.append(await saved(world.store))
    async with running(world.relay().run()):
        await world.telemetry.seen("published", 1 if (step, when) == ("confirm", "after") else 4)
    assert set(world.wait_for) == {message.id for message in messages}
    assert await world.store.oldest() is None


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["claim", "publish", "confirm"])
async def test_bad_weather_at_any_step_is_waited_out(step: str, when: Literal["before", "after"]) -> None:
    world = World()
    messages = [await saved(world.store) for _ in range(3)]
    relay = world.relay(Fault(step, when, Unavailable("storm"), times=7))
    async with running(relay.run()):
        await world.telemetry.seen("published", 3)
        await world.telemetry.seen("relay waits", 7)
        messages.append(await saved(world.store))
        await world.telemetry.seen("published", 4)
    assert await world.store.oldest() is None
    assert set(world.wait_for) == {message.id for message in messages}
    assert relay.problem is None
    assert len(world.waits) == 7


async def test_a_problem_is_named_until_something_succeeds() -> None:
    world = World(LONG)
    await saved(world.store)
    relay = world.relay(Fault("publish", "before", Unavailable("storm"), times=3))
    async with running(relay.run()):
        await world.telemetry.seen("relay waits")
        problem = relay.problem
        await world.telemetry.seen("published")
        await saved(world.store)
        await world.telemetry.seen("published", 2)
        assert relay.problem is None
    assert problem == "storm"
    assert world.telemetry.named("relay waits") == [{"reason": "storm"}] * 3


async def test_a_failure_is_not_over_because_time_has_passed() -> None:
    world, clock = World(LONG), StandingMonotonic()
    world.sleep = Asleep()
    await saved(world.store)
    relay = world.relay(Fault("publish", "before", Unavailable("storm")), monotonic=clock)
    async with running(relay.run()):
        await world.telemetry.seen("relay waits")
        clock.seconds += A_DAY
        assert relay.problem == "storm"


async def test_a_wrong_set_up_is_no_messages_fault_and_ends_it() -> None:
    world = World(LONG)
    await saved(world.store)
    relay = world.relay(Fault("publish", "before", Misconfigured("no such topic")))
    with pytest.raises(Misconfigured, match="no such topic"):
        await asyncio.wait_for(relay.run(), 10)
    assert relay.problem is None
    assert not world.telemetry.named("cannot be published")


@pytest.mark.parametrize("step", ["publish", "confirm"])
async def test_a_step_that_hangs_is_a_problem_until_it_ends(step: str) -> None:
    world = World(LONG)
    hang = Hang(step)
    clock = StandingMonotonic()
    await saved(world.store)
    relay = world.relay(hang, monotonic=clock)
    problems = [relay.problem]
    async with running(relay.run()):
        await hang.reached.wait()
        problems.append(relay.problem)
        clock.seconds += STALLED_AFTER + 7
        problems += [relay.problem, relay.problem]
        hang.released.set()
        await saved(world.store)
        await world.telemetry.seen("published", 2)
        problems.append(relay.problem)
    stalled = "the attempt under way has not ended for 17 s"
    assert problems == [None, None, stalled, stalled, None]


async def test_a_claim_that_waits_for_long_is_no_problem() -> None:
    world, clock = World(LONG), StandingMonotonic()
    relay = world.relay(monotonic=clock)
    async with running(relay.run()):
        await asyncio.sleep(0)
        clock.seconds += 10 * STALLED_AFTER
        assert relay.problem is None


async def test_it_never_gives_up_on_the_weather() -> None:
    world = World(LONG)
    await saved(world.store)
    async with running(world.relay(Fault("publish", "before", Unavailable("storm"), times=500)).run()):
        await world.telemetry.seen("published")
    assert len(world.waits) == 500
    assert max(world.waits) <= 5


async def test_one_that_cannot_be_published_stands_alone_and_the_rest_goes_on() -> None:
    world = World(LONG)
    messages = [await saved(world.store) for _ in range(9)]
    publisher = FragilePublisher(world.log, NO_FAULT)
    publisher.refused = {messages[4].id}
    relay = world.relay(publisher=publisher)
    async with running(relay.run()):
        await world.telemetry.seen("published", 8)
        await world.telemetry.seen("cannot be published")
        later = await saved(world.store)
        await world.telemetry.seen("published", 9)
    assert world.wait_for == [message.id for message in [*messages[:4], *messages[5:], later]]
    assert await world.store.oldest() is not None
    assert relay.problem
    assert messages[4].id in relay.problem
    assert "it is too large" in relay.problem
    expected = {
        "event_id": messages[4].id,
        "appointment_id": messages[4].subject,
        "reason": "it is too large",
    }
    assert world.telemetry.named("cannot be published") == [expected]


async def test_one_that_could_not_be_published_is_tried_again_after_its_lease() -> None:
    world = World()
    message = await saved(world.store)
    publisher = FragilePublisher(world.log, NO_FAULT)
    publisher.refused = {message.id}
    relay = world.relay(publisher=publisher)
    async with running(relay.run()):
        await world.telemetry.seen("cannot be published", 2)
        publisher.refused.clear()
        await world.telemetry.seen("published")
        assert relay.problem is None
    assert world.wait_for == [message.id]


@pytest.mark.parametrize("pace", [1, 0.5], ids=["timers are late", "timers are early"])
@pytest.mark.parametrize("lease", [SHORT, LONG])
async def test_one_that_another_relay_published_is_forgotten(
    lease: float, pace: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinic.domain.messaging.relay.RECHECK_INTERVAL", SHORT)
    world = World(lease)
    message = await saved(world.store)
    publisher = FragilePublisher(world.log, NO_FAULT)
    publisher.refused = {message.id}
    relay = world.relay(publisher=publisher, monotonic=lambda: monotonic() * pace)
    async with running(relay.run()):
        await world.telemetry.seen("cannot be published")
        await asyncio.sleep(3 * SHORT)  # it was looked for, and is still there
        assert relay.problem
        await world.store.confirm([PublishResult(message, "elsewhere", now())])

        async def clear() -> bool:
            return relay.problem is None

        await eventually(clear)


@pytest.mark.parametrize("pace", [1, 0.5], ids=["timers are late", "timers are early"])
async def test_a_failure_is_over_when_nothing_waits_any_more(
    pace: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinic.domain.messaging.relay.RECHECK_INTERVAL", SHORT)
    world = World(LONG)
    fault = Fault("claim", "before", Unavailable("storm"))
    relay = world.relay(fault, monotonic=lambda: monotonic() * pace)
    async with running(relay.run()):
        await world.telemetry.seen("relay waits")
        assert relay.problem == "storm"

        async def over() -> bool:
            return relay.problem is None

        await eventually(over)
        message = await saved(world.store)
        await world.telemetry.seen("published")
    assert world.wait_for == [message.id]


async def test_a_cancelled_relay_ends_its_batch_first() -> None:
    world = World(LONG)
    publisher = Slow(world.log)
    await saved(world.store)
    relay = asyncio.create_task(world.relay(publisher=publisher).run())
    await publisher.begun.wait()
    relay.cancel()
    await asyncio.sleep(0)
    assert not relay.done()
    publisher.go_on.set()
    await asyncio.wait([relay])
    assert relay.cancelled()
    assert await world.store.oldest() is None


async def test_a_second_cancellation_is_immediate_and_loses_nothing() -> None:
    world = World(LONG)
    publisher = Slow(world.log)
    message = await saved(world.store)
    relay = asyncio.create_task(world.relay(publisher=publisher).run())
    await publisher.begun.wait()
    relay.cancel()
    await asyncio.sleep(0)
    relay.cancel()
    with suppress(asyncio.CancelledError):
        await relay
    assert world.wait_for == []
    assert await world.store.oldest() is not None
    assert message.id not in world.wait_for


class Slow(Publisher):
    """Publishes when it is let go."""

    def __init__(self, log: MemoryLog) -> None:
        self._publisher = MemoryPublisher(log, now)
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        self.begun.set()
        await self.go_on.wait()
        return await self._publisher.publish(batch)


class Overslept(Outbox):
    """Hands over events that are held no longer, and then some that are."""

    def __init__(self, stale: Sequence[ClaimedMessage], outbox: Outbox) -> None:
        self._stale = stale
        self._outbox = outbox

    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        stale, self._stale = self._stale, ()
        return stale or await self._outbox.claim(limit)

    async def confirm(self, published: Sequence[PublishResult]) -> None:
        await self._outbox.confirm(published)

    async def waiting(
        self, limit: int, before: datetime | None = None, after: Waiting | None = None
    ) -> Sequence[Waiting]:
        return await self._outbox.waiting(limit, before, after)

    async def count(self, limit: int) -> int:
        return await self._outbox.count(limit)

    async def status(self, event: Message) -> PublicationStatus | None:
        return await self._outbox.status(event)


async def test_events_that_it_has_held_longer_than_their_lease_are_dropped() -> None:
    world = World(LONG)
    gone = a_message()
    held = a_message()
    sentinel = await saved(world.store)
    outbox = Overslept(
        [ClaimedMessage(gone, now(), 0), ClaimedMessage(held, now(), float("inf"))], world.store
    )
    async with running(world.relay(outbox=outbox).run()):
        await world.telemetry.seen("published", 2)
    assert world.wait_for == [held.id, sentinel.id]


async def test_a_batch_that_went_stale_in_bad_weather_is_dropped_and_claimed_anew() -> None:
    world = World()
    message = await saved(world.store)
    weather = Fault("publish", "before", Unavailable("storm"))

    async def long_pause(_: float) -> None:
        await asyncio.sleep(
            2 * SHORT
        )  # it lasts longer than the lease: here the time itself is what is tested

    outbox = Counting(world.store)
    publisher = FragilePublisher(world.log, weather)
    relay = Relay(outbox, publisher, long_pause, world.telemetry, monotonic, uniform)
    async with running(relay.run()):
        await world.telemetry.seen("published")
    assert world.wait_for == [message.id]
    assert outbox.claims >= 2


class Counting(FragileOutbox):
    """Counts the claims."""

    claims = 0

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(outbox, NO_FAULT)

    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        self.claims += 1
        return await super().claim(limit)


def test_pauses_grow_are_jittered_and_have_a_longest() -> None:
    bounds = [1, 2, 4, *[8] * 47]
    ranges = backoff(lambda low, high: low * 100 + high, first=1, longest=8)
    assert [next(ranges) for _ in bounds] == [bound / 2 * 100 + bound for bound in bounds]
    longest = backoff(lambda _, high: high)
    assert [next(longest) for _ in range(9)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    pauses = backoff(uniform, first=1, longest=8)
    assert len({next(pauses) for _ in bounds}) == 50
