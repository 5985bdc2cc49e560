"""What an outbox promises, as a few dicts and sets."""

from collections.abc import Sequence
from datetime import datetime
from time import monotonic

from clinic.domain.messaging.messages import Claimed, Message


def position(fact: Message) -> str:
    """Where this fact is published, whenever it is."""
    return f"log/{fact.id}"


class OutboxModel:
    """The unpublished facts in the order of their saves, and until when somebody holds them.

    Where facts are held `together`, those of one appointment have one lease: while one is held, the others may wait with
    it, and once one is confirmed the others may come again.
    """

    def __init__(self, *, together: bool) -> None:
        self._together = together
        self.unpublished: dict[str, Message] = {}
        self.told: dict[str, tuple[Message, str | None]] = {}
        """Each fact that was ever saved, and where it was published."""
        self._saved: dict[str, tuple[datetime, datetime]] = {}
        self._held: dict[str, float] = {}
        self._handed: set[str] = set()
        self._set_free: set[str] = set()
        self._may_repeat: set[str] = set()

    @property
    def held(self) -> list[Message]:
        return [fact for fact in self.unpublished.values() if fact.id in self._held]

    @property
    def free(self) -> list[Message]:
        """What must come although no lease ends."""
        waiting = {fact.subject for fact in self.held} if self._together else set()
        return [fact for fact in self.unpublished.values() if fact.id not in self._held and fact.subject not in waiting]

    def keep(self, facts: Sequence[Message], since: datetime, till: datetime) -> None:
        self.unpublished |= {fact.id: fact for fact in facts}
        self.told |= {fact.id: (fact, None) for fact in facts}
        self._saved |= {fact.id: (since, till) for fact in facts}
        self._may_repeat.difference_update(fact.id for fact in facts)  # one that is saved again is handed over as any other

    def take(self, claimed: Sequence[Claimed]) -> None:
        moment = monotonic()
        for each in claimed:
            fact = each.message
            if fact.id in self._may_repeat:
                continue
            assert fact == self.unpublished.get(fact.id), "it was never saved, or is confirmed"
            if each.until <= moment:
                continue  # nobody holds it by now
            assert fact.id in self._set_free or self._held.get(fact.id, 0) <= moment, "somebody else holds it"
            assert fact.id in self._handed or fact == self._next(fact.key), "one that was saved before has not come yet"
            self._handed.add(fact.id)
            self._held[fact.id] = each.until

    def _next(self, key: str) -> Message:
        return next(fact for fact in self.unpublished.values() if fact.key == key and fact.id not in self._handed)

    def forget(self, facts: Sequence[Message]) -> None:
        moment = monotonic()
        for fact in facts:
            until = self._held.pop(fact.id, 0)
            if self.unpublished.pop(fact.id, None) and (fact.id in self._set_free or until <= moment):
                self._may_repeat.add(fact.id)  # another relay may hold it by now, and confirming does not take it away
            if fact.id in self.told:
                self.told[fact.id] = fact, position(fact)
            if self._together:
                self._set_free.update(each.id for each in self.unpublished.values() if each.subject == fact.subject)

    def let_go(self) -> None:
        """Who held facts is dead."""
        self._held.clear()

    def is_oldest(self, saved_at: datetime | None) -> bool:
        times = [self._saved[each] for each in self.unpublished]
        if saved_at is None or not times:
            return saved_at is None and not times
        return min(since for since, _ in times) <= saved_at <= min(till for _, till in times)
