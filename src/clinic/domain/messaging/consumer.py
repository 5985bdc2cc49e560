"""Carries messages from a subscription to their use case.

A crash anywhere in here means "again", never "lost": a message is acknowledged after it was handled.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic

from msgspec.structs import replace

from clinic.domain.errors import NotNow, Refused
from clinic.domain.messaging.dead_letters import MAX_NAME, DeadLetters, letter_of
from clinic.domain.messaging.messages import Delivery, Event, Message, Received
from clinic.domain.messaging.ports import Jitter, Monotonic, Sleep, Subscription, Telemetry
from clinic.domain.messaging.retry import LastFailure, backoff, bisect_refused, run_to_completion

PART_SIZE, PARTS_AT_ONCE = 500, 2
"""Messages that are handled together; of a larger batch, one part is read while another is stored."""


class Consumer(Generic[Event]):
    """Carries messages from a subscription to their use case, for as long as the service runs.

    `read` returns None for a message that is not for this context, and raises `Refused` if it cannot be read.
    `handle` takes a batch of events and may refuse it; of a large batch, several parts at once. What is
    refused becomes a dead letter, the rest is handled. `problem` says in one sentence what keeps messages
    from being handled; None while they are.
    """

    def __init__(
        self,
        subscription: Subscription,
        read: Callable[[Message], Event | None],
        handle: Callable[[Sequence[Received[Event]]], Awaitable[object]],
        dead_letters: DeadLetters,
        sleep: Sleep,
        telemetry: Telemetry,
        monotonic: Monotonic,
        jitter: Jitter,
    ) -> None:
        self._subscription, self._dead_letters = subscription, dead_letters
        self._read, self._handle = read, handle
        self._sleep, self._jitter = sleep, jitter
        self._telemetry = telemetry
        self._failure = LastFailure(monotonic)

    @property
    def problem(self) -> str | None:
        return str(self._failure) or None

    async def run(self) -> None:
        """Run until cancelled. A cancellation lets the current attempt finish first."""
        while True:
            batch: Sequence[Delivery] = ()
            for wait in backoff(self._jitter):
                try:
                    batch = batch or await self._subscription.receive()
                    if batch:
                        with self._failure:
                            await run_to_completion(self._attempt(batch))
                except NotNow as reason:
                    self._failure.record(reason)
                    self._telemetry("consumer waits", reason=str(reason))
                    batch = [_again(delivery) for delivery in batch]
                    await self._sleep(wait)
                else:
                    self._failure.clear()
                    break

    async def _attempt(self, batch: Sequence[Delivery]) -> None:
        refused: list[tuple[Delivery, Refused]] = []
        skipped: list[Delivery] = []
        at_once = asyncio.Semaphore(PARTS_AT_ONCE)  # who asks meanwhile need not wait for all of them

        async def attempt(part: Sequence[Delivery]) -> None:
            async with at_once:
                await self._attempt_part(part, refused, skipped)

        outcomes = await asyncio.gather(*map(attempt, _parts(batch)), return_exceptions=True)
        failures = [outcome for outcome in outcomes if outcome]
        if failures:  # a defect first: the others are tried again
            raise min(failures, key=lambda each: isinstance(each, NotNow))
        if refused:
            await self._dead_letter(refused)
        await self._subscription.acknowledge(batch)
        for other in skipped:
            self._telemetry("skipped", type=other.message.type[:MAX_NAME], position=other.origin.position)

    async def _attempt_part(
        self, part: Sequence[Delivery], refused: list[tuple[Delivery, Refused]], skipped: list[Delivery]
    ) -> None:
        readable: list[tuple[Delivery, Received[Event]]] = []
        for delivery in part:
            try:
                event = self._read(delivery.message)
            except Refused as reason:
                refused.append((delivery, reason))
            else:
                if event is None:
                    skipped.append(delivery)
                else:
                    readable.append((delivery, Received(event, delivery.origin)))
        if readable:
            found = await bisect_refused(readable, self._handle_readable)
            refused += [(delivery, reason) for (delivery, _), reason in found]

    async def _handle_readable(self, readable: Sequence[tuple[Delivery, Received[Event]]]) -> None:
        await self._handle([received for _, received in readable])

    async def _dead_letter(self, refused: Sequence[tuple[Delivery, Refused]]) -> None:
        letters = [letter_of(delivery, reason) for delivery, reason in refused]
        await self._dead_letters.add(letters)
        for letter in letters:
            self._telemetry(
                "dead-lettered",
                event_id=letter.message_id[:MAX_NAME],
                appointment_id=letter.about,
                position=letter.position,
                reason=letter.reason,
            )


def _parts(batch: Sequence[Delivery]) -> Sequence[Sequence[Delivery]]:
    """All that is about one key is in one part, in order: the first event charges."""
    parts: list[list[Delivery]] = [[] for _ in range(-(-len(batch) // PART_SIZE))]
    for delivery in batch:
        parts[hash(delivery.message.key) % len(parts)].append(delivery)
    return parts


def _again(delivery: Delivery) -> Delivery:
    return replace(delivery, origin=replace(delivery.origin, attempts=delivery.origin.attempts + 1))
