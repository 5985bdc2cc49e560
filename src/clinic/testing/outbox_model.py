"""What an outbox promises, as a few dicts and sets."""

from collections.abc import Sequence
from datetime import datetime
from time import monotonic

from clinic.domain.messaging.messages import ClaimedMessage, Message


def position(event: Message) -> str:
    """The position of this event once it is published."""
    return f"log/{event.id}"


class OutboxModel:
    """The unpublished events in the order of their saves, and until when somebody holds them.

    Where events are held `together`, those of one appointment have one lease: while one is held, the others
    may wait with
    it, and once one is confirmed the others may come again.
    """

    def __init__(self, *, together: bool) -> None:
        self._together = together
        self.unpublished: dict[str, Message] = {}
        self.known: dict[str, tuple[Message, str | None]] = {}
        """Each event that was ever saved, and where it was published."""
        self._saved: dict[str, tuple[datetime, datetime]] = {}
        self._first_saved: dict[str, datetime] = {}
        self._held: dict[str, float] = {}
        self._ready: set[str] = set()
        self._set_free: set[str] = set()
        self._may_repeat: set[str] = set()

    @property
    def held(self) -> list[Message]:
        return [event for event in self.unpublished.values() if event.id in self._held]

    @property
    def free(self) -> list[Message]:
        """What must come although no lease ends."""
        waiting = {event.subject for event in self.held} if self._together else set()
        return [
            event
            for event in self.unpublished.values()
            if event.id not in self._held and event.subject not in waiting
        ]

    def keep(self, events: Sequence[Message], since: datetime, till: datetime) -> None:
        self.unpublished |= {event.id: event for event in events}
        self.known |= {event.id: (event, None) for event in events}
        self._saved |= {event.id: (since, till) for event in events}
        self._first_saved = {event.id: since for event in events} | self._first_saved
        self._may_repeat.difference_update(
            event.id for event in events
        )  # one that is saved again is handed over as any other

    def take(self, claimed: Sequence[ClaimedMessage]) -> None:
        moment = monotonic()
        for each in claimed:
            event = each.message
            if event.id in self._may_repeat:
                continue
            assert event == self.unpublished.get(event.id), "it was never saved, or is confirmed"
            assert self._first_saved[event.id] <= each.saved_at <= self._saved[event.id][1], (
                "it was saved at another time"
            )
            if each.expires_at <= moment:
                continue  # nobody holds it by now
            assert event.id in self._set_free or self._held.get(event.id, 0) <= moment, (
                "somebody else holds it"
            )
            assert event.id in self._ready or event == self._next(event.key), (
                "one that was saved before has not come yet"
            )
            self._ready.add(event.id)
            self._held[event.id] = each.expires_at

    def _next(self, key: str) -> Message:
        return next(
            event for event in self.unpublished.values() if event.key == key and event.id not in self._ready
        )

    def forget(self, events: Sequence[Message]) -> None:
        moment = monotonic()
        for event in events:
            until = self._held.pop(event.id, 0)
            if self.unpublished.pop(event.id, None) and (event.id in self._set_free or until <= moment):
                self._may_repeat.add(
                    event.id
                )  # another relay may hold it by now, and confirming does not take it away
            if event.id in self.known:
                self.known[event.id] = event, position(event)
            if self._together:
                self._set_free.update(
                    each.id for each in self.unpublished.values() if each.subject == event.subject
                )

    def let_go(self) -> None:
        """Who held events is dead."""
        self._held.clear()

    def is_oldest(self, saved_at: datetime | None) -> bool:
        times = [self._saved[each] for each in self.unpublished]
        if saved_at is None or not times:
            return saved_at is None and not times
        return min(since for since, _ in times) <= saved_at <= min(till for _, till in times)
