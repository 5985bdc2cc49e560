"""Carries saved events out of a context.

A crash anywhere in here means "again", never "lost": what was published is confirmed afterwards.
"""

import asyncio
from collections.abc import Sequence
from itertools import islice

from msgspec.structs import replace

from clinic.domain.errors import NotNow, Refused
from clinic.domain.messaging.messages import ClaimedMessage, Message
from clinic.domain.messaging.ports import Jitter, Monotonic, Outbox, Publisher, Sleep, Telemetry
from clinic.domain.messaging.retry import LastFailure, backoff, bisect_refused, run_to_completion

BATCH_SIZE = 500
MAX_REST = 0.02
"""Seconds after a batch in which others may gather: each batch costs every server its round trips."""
RECHECK_INTERVAL = 1.0
"""Seconds between two checks whether another relay has published what failed here."""
RECHECKS = 10
"""Events that one such check asks about."""
MAX_STUCK = 1000
"""The most events that cannot be published whose reasons the relay keeps."""


class Relay:
    """Carries saved events from the outbox to the publisher, for as long as the service runs.

    `problem` says in one sentence what keeps events from leaving; None while they leave.
    """

    def __init__(
        self,
        outbox: Outbox,
        publisher: Publisher,
        sleep: Sleep,
        telemetry: Telemetry,
        monotonic: Monotonic,
        jitter: Jitter,
    ) -> None:
        self._outbox, self._publisher = outbox, publisher
        self._sleep, self._telemetry = sleep, telemetry
        self._monotonic, self._jitter = monotonic, jitter
        self._stuck: dict[str, tuple[Message, str]] = {}
        self._failure = LastFailure(monotonic)
        self._recheck_at = 0.0

    @property
    def problem(self) -> str | None:
        if self._stuck and not str(self._failure):
            event_id, (_, reason) = next(iter(self._stuck.items()))
            count = f"{len(self._stuck)}{'+' if len(self._stuck) == MAX_STUCK else ''}"
            return f"events that cannot be published: {count}, among them {event_id}: {reason}"
        return str(self._failure) or None

    async def run(self) -> None:
        """Run until cancelled. A cancellation lets the current batch finish first."""
        held: Sequence[ClaimedMessage] = ()
        while True:
            for wait in backoff(self._jitter):
                try:
                    held = self._still_held(held) or await self._claim()
                    began = self._monotonic()
                    with self._failure:
                        await run_to_completion(self._carry(held))
                except NotNow as reason:
                    self._failure.record(reason)
                    self._recheck_at = self._monotonic() + RECHECK_INTERVAL
                    self._telemetry("relay waits", reason=str(reason))
                    await self._sleep(wait)
                else:
                    if len(held) < BATCH_SIZE:  # as long as it worked: after a pause, an event leaves at once
                        await self._sleep(min(self._monotonic() - began, MAX_REST))
                    held = ()
                    break

    async def _claim(self) -> Sequence[ClaimedMessage]:
        claiming = asyncio.create_task(self._outbox.claim(BATCH_SIZE))
        try:
            while self.problem:
                await asyncio.wait([claiming], timeout=max(0, self._recheck_at - self._monotonic()))
                if self._monotonic() >= self._recheck_at:  # a timer may come a moment early
                    await self._recheck()
                elif claiming.done():
                    break
            return await claiming
        finally:
            claiming.cancel()

    async def _recheck(self) -> None:
        """Forget what is over: stuck events that are published by now, a failure with nothing left."""
        self._recheck_at = self._monotonic() + RECHECK_INTERVAL
        try:
            for event_id, stuck in list(islice(self._stuck.items(), RECHECKS)):
                status = await self._outbox.status(stuck[0])
                del self._stuck[event_id]
                if status is not None and status.published_at is None:
                    self._stuck[event_id] = stuck  # at the end: the next check asks about others
            if str(self._failure) and await self._outbox.oldest() is None:
                self._failure.clear()
        except NotNow:
            return  # the claim itself says what is wrong

    async def _carry(self, held: Sequence[ClaimedMessage]) -> None:
        if not (batch := [_recorded(claimed) for claimed in self._still_held(held)]):
            return
        for message, reason in await bisect_refused(batch, self._publish):
            if message.id in self._stuck or len(self._stuck) < MAX_STUCK:
                self._stuck[message.id] = message, str(reason)
            self._failure.clear()  # the transport answers
            self._telemetry(
                "cannot be published", event_id=message.id, appointment_id=message.subject, reason=str(reason)
            )

    async def _publish(self, batch: Sequence[Message]) -> None:
        if not all(message.type for message in batch):
            raise Refused("what is stored under this id cannot be read as an event")
        published = await self._publisher.publish(batch)
        await self._outbox.confirm(published)
        self._failure.clear()
        for message, result in zip(batch, published, strict=True):
            self._stuck.pop(message.id, None)
            self._telemetry(
                "published", event_id=message.id, appointment_id=message.subject, position=result.position
            )

    def _still_held(self, held: Sequence[ClaimedMessage]) -> Sequence[ClaimedMessage]:
        # In the step of the call: a process can sleep past its lease, and another relay would repeat it.
        now = self._monotonic()
        return [claimed for claimed in held if claimed.expires_at > now]


def _recorded(claimed: ClaimedMessage) -> Message:
    """The message as it is sent: the extension `recordedtime` of CloudEvents says when it was saved."""
    recorded = claimed.saved_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    extensions = dict(claimed.message.extensions) | {"recordedtime": recorded}
    return replace(claimed.message, extensions=tuple(extensions.items()))
