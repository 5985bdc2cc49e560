"""Carries saved events out of a context.

A crash anywhere in here means "again", never "lost": what was published is confirmed afterwards.
"""

from collections.abc import Sequence
from time import monotonic

from clinic.domain.errors import NotNow
from clinic.domain.messaging.messages import Claimed, Message
from clinic.domain.messaging.ports import Notices, Outbox, Pause, Publisher
from clinic.domain.messaging.retry import HEARD_OF_WITHIN, Weather, apart, growing_pauses, uninterrupted

BATCH = 500


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
