"""The delivery policy, written once, above every store and transport.

A crash anywhere in here means "again", never "lost": what was published is confirmed afterwards, what arrived is
acknowledged afterwards.
"""

import asyncio
import hashlib
import random
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from time import monotonic
from typing import Generic, TypeVar

from msgspec.structs import replace

from clinic.domain.errors import NotNow, Refused
from clinic.domain.messaging import (
    Claimed,
    Clock,
    DeadLetter,
    DeadLetters,
    Delivery,
    Fact,
    Message,
    Notices,
    Outbox,
    Pause,
    Publisher,
    Subscription,
    Told,
)

T = TypeVar("T")

BATCH = 500
KEPT_OF_A_VALUE = 1024 * 1024
HEARD_OF_WITHIN = 15.0
"""Seconds after which trouble that does not come again is over: longer than the longest pause and a server's time to answer."""
KEPT_OF_A_NAME = 200
VARIES = re.compile(
    r"""[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|'.*'|".*"|\d[\d:.,TZ+-]*""",
    re.IGNORECASE | re.DOTALL,
)
"""What differs between two reasons of one kind: ids, numbers, dates, and all from the first quote to the last one like it: what
strangers wrote may have quotes of its own."""


def growing_pauses(first: float = 0.05, longest: float = 5.0) -> Iterator[float]:
    """Seconds to wait before each next try: doubling, with jitter, so that many waiters do not come back at once."""
    longest_now = first
    while True:
        yield random.uniform(longest_now / 2, longest_now)  # noqa: S311 — spreads load, guards nothing
        longest_now = min(longest_now * 2, longest)


async def uninterrupted(work: Coroutine[object, object, T]) -> T:
    """Run the work to its end even when cancelled meanwhile; a second cancellation ends it."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            raise
        raise


async def apart(batch: Sequence[T], do: Callable[[Sequence[T]], Awaitable[None]]) -> list[tuple[T, Refused]]:
    """Do the whole batch at once; where it is refused, halve it until each culprit stands alone, and return those."""
    try:
        await do(batch)
    except Refused as reason:
        if len(batch) == 1:
            return [(batch[0], reason)]
        middle = len(batch) // 2
        return await apart(batch[:middle], do) + await apart(batch[middle:], do)
    return []


class Weather:
    """The last bad weather, in a sentence. It is over when it is said to be, or is not heard of any more."""

    def __init__(self) -> None:
        self._last: tuple[str, float] | None = None

    def is_bad(self, reason: NotNow) -> None:
        self._last = str(reason), monotonic()

    def is_over(self) -> None:
        self._last = None

    def __str__(self) -> str:
        return self._last[0] if self._last and monotonic() - self._last[1] < HEARD_OF_WITHIN else ""


class Relay:
    """Carries saved facts from the outbox to the publisher, for as long as the service runs.

    `trouble` says in one sentence what keeps facts from leaving; None while they leave.
    """

    def __init__(self, outbox: Outbox, publisher: Publisher, pause: Pause, notices: Notices) -> None:
        self._outbox, self._publisher, self._pause, self._notices = outbox, publisher, pause, notices
        self._stuck: dict[str, tuple[str, float]] = {}
        self._weather = Weather()

    @property
    def trouble(self) -> str | None:
        # It is offered again after its lease: one that is not heard of any more was published, by whomever.
        self._stuck = {each: (reason, until) for each, (reason, until) in self._stuck.items() if until + HEARD_OF_WITHIN > monotonic()}
        if self._stuck:
            event_id, (reason, _) = next(iter(self._stuck.items()))
            return f"{len(self._stuck)} facts cannot be published, among them {event_id}: {reason}"
        return str(self._weather) or None

    async def run(self) -> None:
        """Never returns; cancel it. The batch under way is ended first."""
        held: Sequence[Claimed] = ()
        while True:
            for wait in growing_pauses():
                try:
                    held = _still_held(held) or await self._outbox.claim(BATCH)
                    await uninterrupted(self._carry(_still_held(held)))
                except NotNow as weather:
                    self._weather.is_bad(weather)
                    self._notices("relay waits", reason=str(weather))
                    await self._pause(wait)
                else:
                    held = ()
                    break

    async def _carry(self, held: Sequence[Claimed]) -> None:
        if not held:
            return
        until = {each.message.id: each.until for each in held}
        for message, reason in await apart([each.message for each in held], self._publish):
            self._stuck[message.id] = str(reason), until[message.id]
            self._notices("cannot be published", event_id=message.id, appointment_id=message.subject, reason=str(reason))

    async def _publish(self, batch: Sequence[Message]) -> None:
        published = await self._publisher.publish(batch)
        await self._outbox.confirm(published)
        self._weather.is_over()
        for message, place in zip(batch, published, strict=True):
            self._stuck.pop(message.id, None)
            self._notices("published", event_id=message.id, appointment_id=message.subject, position=place.position)


def _still_held(claimed: Sequence[Claimed]) -> Sequence[Claimed]:
    """A process can sleep past its lease: by then another relay may hold the fact, and telling it late repeats it."""
    now = monotonic()
    return [each for each in claimed if each.until > now]


class Consumer(Generic[Fact]):
    """Carries what arrives to its use case, for as long as the service runs.

    `read` answers None for what is none of this context's business and raises `Refused` for what cannot be read;
    `handle` takes a batch of facts and may refuse it. What is refused becomes a dead letter, the rest is handled.
    `trouble` says in one sentence what keeps arrivals from being handled; None while they are.
    """

    def __init__(
        self,
        subscription: Subscription,
        read: Callable[[Message], Fact | None],
        handle: Callable[[Sequence[Told[Fact]]], Awaitable[object]],
        dead_letters: DeadLetters,
        clock: Clock,
        pause: Pause,
        notices: Notices,
    ) -> None:
        self._subscription, self._read, self._handle, self._dead_letters = subscription, read, handle, dead_letters
        self._clock, self._pause, self._notices = clock, pause, notices
        self._weather = Weather()

    @property
    def trouble(self) -> str | None:
        return str(self._weather) or None

    async def run(self) -> None:
        """Never returns; cancel it. The attempt under way is ended first."""
        while True:
            batch: Sequence[Delivery] = ()
            for wait in growing_pauses():
                try:
                    batch = batch or await self._subscription.receive()
                    await uninterrupted(self._attempt(batch))
                except NotNow as weather:
                    self._weather.is_bad(weather)
                    self._notices("consumer waits", reason=str(weather))
                    batch = [_again(delivery) for delivery in batch]
                    await self._pause(wait)
                else:
                    self._weather.is_over()
                    break

    async def _attempt(self, batch: Sequence[Delivery]) -> None:
        readable: list[tuple[Delivery, Told[Fact]]] = []
        refused: list[tuple[Delivery, Refused]] = []
        skipped: list[Delivery] = []
        for delivery in batch:
            try:
                fact = self._read(delivery.message)
            except Refused as reason:
                refused.append((delivery, reason))
            else:
                if fact is None:
                    skipped.append(delivery)
                else:
                    readable.append((delivery, Told(fact, delivery.origin)))
        if readable:
            refused += [(delivery, reason) for (delivery, _), reason in await apart(readable, self._handle_told)]
        if refused:
            await self._set_aside(refused)
        await self._subscription.acknowledge(batch)
        for delivery in skipped:
            self._notices("skipped", type=delivery.message.type, position=delivery.origin.position)

    async def _handle_told(self, readable: Sequence[tuple[Delivery, Told[Fact]]]) -> None:
        await self._handle([told for _, told in readable])

    async def _set_aside(self, refused: Sequence[tuple[Delivery, Refused]]) -> None:
        await self._dead_letters.keep([self._letter(delivery, reason) for delivery, reason in refused])
        for delivery, reason in refused:
            message, position = delivery.message, delivery.origin.position
            self._notices("set aside", event_id=message.id, appointment_id=message.subject, position=position, reason=str(reason))

    def _letter(self, delivery: Delivery, reason: Refused) -> DeadLetter:
        message, value, now = delivery.message, delivery.value, self._clock()
        return DeadLetter(
            position=delivery.origin.position,
            about=about(message),
            type=message.type[:KEPT_OF_A_NAME],
            published_at=delivery.origin.published_at,
            message_id=message.id,
            key=delivery.key,
            headers=delivery.headers,
            value=value and value[:KEPT_OF_A_VALUE],
            length=len(value or b""),
            sha256=hashlib.sha256(value or b"").hexdigest(),
            reason=str(reason),
            group=fingerprint(str(reason)),
            attempts=1,
            first_seen=now,
            last_seen=now,
        )


def about(message: Message) -> str:
    """The appointment that a message is about, as far as can be read; not more of it than a name has."""
    return (message.subject or message.key)[:KEPT_OF_A_NAME]


def fingerprint(reason: str) -> str:
    """The group of a reason: eight hexadecimal digits, the same for reasons that differ only in what varies."""
    return hashlib.sha256(VARIES.sub("#", reason).encode()).hexdigest()[:8]


def _again(delivery: Delivery) -> Delivery:
    origin = delivery.origin
    return replace(delivery, origin=replace(origin, attempts=origin.attempts + 1))
