"""Defaults that a test does not care about, and small stand-ins for the world: a clock, a sleep, telemetry, a
fault.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Protocol, TypeVar
from uuid import uuid4

from msgspec.structs import replace

from clinic.adapters import cloudevents
from clinic.adapters.cloudevents import MAX_EXTENSION, MAX_EXTENSIONS
from clinic.domain.appointment.model import Appointment
from clinic.domain.events import AppointmentFinished, to_message
from clinic.domain.financial.model import Charge
from clinic.domain.financial.pricing import POLICIES
from clinic.domain.messaging.dead_letters import (
    DeadLetter,
    DeadLetters,
    HistoryEntry,
)
from clinic.domain.messaging.messages import Delivery, Message, Origin, Received
from clinic.domain.messaging.ports import Telemetry
from clinic.domain.money import Money
from clinic.entrypoints.forwarding import ForwardingDeadLetters
from clinic.entrypoints.telemetry import read

T = TypeVar("T")

ONE_O_CLOCK = datetime(2020, 12, 1, 13, tzinfo=UTC)
TWO_O_CLOCK = ONE_O_CLOCK + timedelta(hours=1)


def now() -> datetime:
    """The time, in milliseconds as operational times are."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def an_appointment(**changes: Any) -> Appointment:
    """One that has started at one o'clock."""
    default = Appointment(
        id=uuid4(), physician_id=uuid4(), patient_id=uuid4(), price=Money("200.00"), start=ONE_O_CLOCK
    )
    return replace(default, **changes)


def an_event(**changes: Any) -> AppointmentFinished:
    """An appointment lasted from one to two o'clock."""
    default = AppointmentFinished(
        appointment_id=uuid4(),
        physician_id=uuid4(),
        patient_id=uuid4(),
        price=Money("200.00"),
        start=ONE_O_CLOCK,
        end=TWO_O_CLOCK,
    )
    return replace(default, **changes)


EXTENSIONS: Final = (("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),)

MANY_EXTENSIONS: Final = tuple(
    (f"{number}".rjust(20, "x"), "Zoë " * (MAX_EXTENSION // 4)) for number in range(MAX_EXTENSIONS)
)
"""As many, with names and values as long as may be."""


def a_message(**changes: Any) -> Message:
    """An event as a message, with an extension."""
    return replace(to_message(an_event()), **{"extensions": EXTENSIONS} | changes)


def an_origin(**changes: Any) -> Origin:
    """The first message of some log."""
    return replace(Origin(position="log/1", published_at=TWO_O_CLOCK, received_at=TWO_O_CLOCK), **changes)


def received(event: AppointmentFinished, **origin: Any) -> Received[AppointmentFinished]:
    """The event, as it was read."""
    return Received(event, an_origin(**origin))


def a_charge(**changes: Any) -> Charge:
    """Two begun hours at 200.00, charged at two o'clock."""
    return replace(Charge.for_finished(received(an_event()), POLICIES["hours-begun"], TWO_O_CLOCK), **changes)


def a_letter(**changes: Any) -> DeadLetter:
    """Something unreadable, seen once."""
    default = DeadLetter(
        position="log/1",
        about="an appointment",
        type="something",
        published_at=ONE_O_CLOCK,
        message_id="1",
        key=b"key",
        headers=(("ce_id", b"1"),),
        value=b"?",
        length=1,
        sha256=hashlib.sha256(b"?").hexdigest(),
        reason="it cannot be read",
        code="unreadable",
        group="unread",
        attempts=1,
        first_seen=ONE_O_CLOCK,
        last_seen=ONE_O_CLOCK,
    )
    return replace(default, entries=len(changes.get("history", ())), **changes)


async def keep(letters: DeadLetters, *several: DeadLetter) -> None:
    """Add the letters, each with its history."""
    for letter in several:
        if letter.history:
            new = replace(letter, state="waiting", entries=0, history=())
            await letters.add([new])
            for entry in letter.history:
                await letters.record(new, entry)
                new = new.with_entry(entry)
        else:
            await letters.add([letter])


def a_delivery(message: Message, **origin: Any) -> Delivery:
    """The message as it arrives."""
    return Delivery(
        message=message,
        origin=an_origin(**origin),
        key=message.key.encode(),
        headers=tuple(cloudevents.headers(message)),
        value=message.data,
    )


def a_history_entry(**changes: Any) -> HistoryEntry:
    """Anna has replayed it, and it was charged."""
    return replace(HistoryEntry("replayed", "anna", TWO_O_CLOCK, "charged 400.00"), **changes)


class StandingClock:
    """Stands still until it is moved."""

    def __init__(self, moment: datetime = ONE_O_CLOCK) -> None:
        self.moment = moment

    def __call__(self) -> datetime:
        return self.moment

    def move(self, **by: float) -> None:
        """Forward or back, by hours=, minutes=, seconds=."""
        self.moment += timedelta(**by)


A_DAY = 86_400.0
"""Seconds."""


class StandingMonotonic:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class RecordedTelemetry(list[tuple[str, dict[str, object]]], Telemetry):
    """Every event, in order; a test can wait for one to come."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    def __call__(self, event: str, /, **details: object) -> None:
        self.append((event, read(details)))
        self._changed.set()

    def named(self, event: str) -> list[dict[str, object]]:
        """The details of each event of that name."""
        return [details for name, details in self if name == event]

    async def seen(self, event: str, times: int = 1) -> None:
        """Return when it was recorded that often."""
        while len(self.named(event)) < times:
            self._changed.clear()
            await self._changed.wait()


class NoWait:
    """A sleep that records how long it should have been, and is over at once."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.waited.append(seconds)
        await asyncio.sleep(0)


class Asleep(NoWait):
    """A sleep that is never over: whatever comes next does not come."""

    async def __call__(self, seconds: float) -> None:
        self.waited.append(seconds)
        await asyncio.Future()


class Died(Exception):
    """A process ends at this point: no line after it is run."""


class Fault:
    """Goes wrong at one step of several: before the step's work, or after it, when its outcome is lost on the
    way.
    """

    def __init__(self, step: str, when: Literal["before", "after"], error: Exception, times: int = 1) -> None:
        self._step = step
        self._when = when
        self._error = error
        self._left = times

    async def __call__(self, step: str, work: Callable[[], Awaitable[T]]) -> T:
        if not self._left or step != self._step:
            return await work()
        self._left -= 1
        if self._when == "after":
            await work()
        raise self._error


NO_FAULT = Fault("none", "before", Died(), times=0)


class Hang(Fault):
    """One step does not answer until it is let go; `reached` says that it has begun."""

    def __init__(self, step: str) -> None:
        super().__init__(step, "before", Died(), times=0)
        self.reached = asyncio.Event()
        self.released = asyncio.Event()

    async def __call__(self, step: str, work: Callable[[], Awaitable[T]]) -> T:
        if step == self._step:
            self.reached.set()
            await self.released.wait()
        return await work()


class FragileDeadLetters(ForwardingDeadLetters):
    """Something goes wrong at adding or recording, or somebody else records first."""

    def __init__(
        self, letters: DeadLetters, fault: Fault = NO_FAULT, between: Sequence[HistoryEntry] = ()
    ) -> None:
        super().__init__(letters)
        self._fault = fault
        self._between = list(between)

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        await self._fault("add", lambda: self._letters.add(letters))

    async def record(self, letter: DeadLetter, entry: HistoryEntry) -> None:
        if self._between:
            await self._letters.record(await self.get(letter.position), self._between.pop(0))
        await self._fault("record", lambda: self._letters.record(letter, entry))


class Openable(Protocol):
    async def open(self) -> None: ...
    async def close(self) -> None: ...


Opened = TypeVar("Opened", bound=Openable)


@asynccontextmanager
async def opened(subject: Opened) -> AsyncIterator[Opened]:
    """Something that is opened and closed, open."""
    await subject.open()
    try:
        yield subject
    finally:
        await subject.close()


@asynccontextmanager
async def running(loop: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """A loop that never ends by itself, until the block does."""
    task = asyncio.create_task(loop)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Died):
            await task
