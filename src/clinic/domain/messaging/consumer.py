"""Carries what arrives to its use case.

A crash anywhere in here means "again", never "lost": what arrived is acknowledged afterwards.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic

from msgspec.structs import replace

from clinic.domain.errors import NotNow, Refused
from clinic.domain.messaging.dead_letters import MAX_NAME, DeadLetter, DeadLetters, about, fingerprint
from clinic.domain.messaging.messages import Delivery, Event, Message, Received
from clinic.domain.messaging.ports import Clock, Jitter, Sleep, Subscription, Telemetry
from clinic.domain.messaging.retry import LastFailure, backoff, bisect_refused, run_to_completion

MAX_VALUE = 1024 * 1024


class Consumer(Generic[Event]):
    """Carries what arrives to its use case, for as long as the service runs.

    `read` answers None for what is none of this context's business and raises `Refused` for what cannot be
    read;
    `handle` takes a batch of facts and may refuse it. What is refused becomes a dead letter, the rest is
    handled.
    `problem` says in one sentence what keeps arrivals from being handled; None while they are.
    """

    def __init__(
        self,
        subscription: Subscription,
        read: Callable[[Message], Event | None],
        handle: Callable[[Sequence[Received[Event]]], Awaitable[object]],
        dead_letters: DeadLetters,
        clock: Clock,
        pause: Sleep,
        telemetry: Telemetry,
        jitter: Jitter,
    ) -> None:
        self._subscription = subscription
        self._read = read
        self._handle = handle
        self._dead_letters = dead_letters
        self._clock = clock
        self._pause = pause
        self._notices = telemetry
        self._jitter = jitter
        self._failure = LastFailure()

    @property
    def problem(self) -> str | None:
        return str(self._failure) or None

    async def run(self) -> None:
        """Never returns; cancel it. The attempt under way is ended first."""
        while True:
            batch: Sequence[Delivery] = ()
            for wait in backoff(self._jitter):
                try:
                    batch = batch or await self._subscription.receive()
                    if batch:
                        await run_to_completion(self._attempt(batch))
                except NotNow as reason:
                    self._failure.record(reason)
                    self._notices("consumer waits", reason=str(reason))
                    batch = [_again(delivery) for delivery in batch]
                    await self._pause(wait)
                else:
                    self._failure.clear()
                    break

    async def _attempt(self, batch: Sequence[Delivery]) -> None:
        readable: list[tuple[Delivery, Received[Event]]] = []
        refused: list[tuple[Delivery, Refused]] = []
        skipped: list[Delivery] = []
        for delivery in batch:
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
            refused += [
                (delivery, reason)
                for (delivery, _), reason in await bisect_refused(readable, self._handle_told)
            ]
        if refused:
            await self._set_aside(refused)
        await self._subscription.acknowledge(batch)
        for delivery in skipped:
            self._notices("skipped", type=delivery.message.type, position=delivery.origin.position)

    async def _handle_told(self, readable: Sequence[tuple[Delivery, Received[Event]]]) -> None:
        await self._handle([received for _, received in readable])

    async def _set_aside(self, refused: Sequence[tuple[Delivery, Refused]]) -> None:
        await self._dead_letters.add([self._letter(delivery, reason) for delivery, reason in refused])
        for delivery, reason in refused:
            message, position = delivery.message, delivery.origin.position
            self._notices(
                "dead-lettered",
                event_id=message.id,
                appointment_id=message.subject,
                position=position,
                reason=str(reason),
            )

    def _letter(self, delivery: Delivery, reason: Refused) -> DeadLetter:
        message, value, now = delivery.message, delivery.value, self._clock()
        return DeadLetter(
            position=delivery.origin.position,
            about=about(message),
            type=message.type[:MAX_NAME],
            published_at=delivery.origin.published_at,
            message_id=message.id,
            key=delivery.key,
            headers=delivery.headers,
            value=value and value[:MAX_VALUE],
            length=len(value or b""),
            sha256=hashlib.sha256(value or b"").hexdigest(),
            reason=str(reason),
            group=fingerprint(str(reason)),
            attempts=1,
            first_seen=now,
            last_seen=now,
        )


def _again(delivery: Delivery) -> Delivery:
    origin = delivery.origin
    return replace(delivery, origin=replace(origin, attempts=origin.attempts + 1))
