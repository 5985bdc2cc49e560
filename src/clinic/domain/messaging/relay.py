"""Carries saved events out of a context.

A crash anywhere in here means "again", never "lost": what was published is confirmed afterwards.
"""

from collections.abc import Sequence
from time import monotonic

from clinic.domain.errors import NotNow
from clinic.domain.messaging.messages import ClaimedMessage, Message
from clinic.domain.messaging.ports import Outbox, Publisher, Sleep, Telemetry
from clinic.domain.messaging.retry import (
    RECOVERY_TIMEOUT,
    LastFailure,
    backoff,
    bisect_refused,
    run_to_completion,
)

BATCH_SIZE = 500


class Relay:
    """Carries saved facts from the outbox to the publisher, for as long as the service runs.

    `problem` says in one sentence what keeps facts from leaving; None while they leave.
    """

    def __init__(self, outbox: Outbox, publisher: Publisher, pause: Sleep, telemetry: Telemetry) -> None:
        self._outbox, self._publisher, self._pause, self._notices = outbox, publisher, pause, telemetry
        self._stuck: dict[str, tuple[str, float]] = {}
        self._weather = LastFailure()

    @property
    def problem(self) -> str | None:
        # It is offered again after its lease: one that is not heard of any more was published, by whomever.
        self._stuck = {
            each: (reason, expires_at)
            for each, (reason, expires_at) in self._stuck.items()
            if expires_at + RECOVERY_TIMEOUT > monotonic()
        }
        if self._stuck:
            event_id, (reason, _) = next(iter(self._stuck.items()))
            return f"{len(self._stuck)} facts cannot be published, among them {event_id}: {reason}"
        return str(self._weather) or None

    async def run(self) -> None:
        """Never returns; cancel it. The batch under way is ended first."""
        held: Sequence[ClaimedMessage] = ()
        while True:
            for wait in backoff():
                try:
                    held = _still_held(held) or await self._outbox.claim(BATCH_SIZE)
                    await run_to_completion(self._carry(_still_held(held)))
                except NotNow as weather:
                    self._weather.record(weather)
                    self._notices("relay waits", reason=str(weather))
                    await self._pause(wait)
                else:
                    held = ()
                    break

    async def _carry(self, held: Sequence[ClaimedMessage]) -> None:
        if not held:
            return
        expires_at = {each.message.id: each.expires_at for each in held}
        for message, reason in await bisect_refused([each.message for each in held], self._publish):
            self._stuck[message.id] = str(reason), expires_at[message.id]
            self._notices(
                "cannot be published", event_id=message.id, appointment_id=message.subject, reason=str(reason)
            )

    async def _publish(self, batch: Sequence[Message]) -> None:
        published = await self._publisher.publish(batch)
        await self._outbox.confirm(published)
        self._weather.clear()
        for message, place in zip(batch, published, strict=True):
            self._stuck.pop(message.id, None)
            self._notices(
                "published", event_id=message.id, appointment_id=message.subject, position=place.position
            )


def _still_held(claimed: Sequence[ClaimedMessage]) -> Sequence[ClaimedMessage]:
    """A process can sleep past its lease: by then another relay may hold the fact, and telling it late
    repeats it.
    """
    now = monotonic()
    return [each for each in claimed if each.expires_at > now]
