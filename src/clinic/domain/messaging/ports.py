"""The ports that carry events, and those that every part of the system is handed."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

from clinic.domain.messaging.messages import (
    ClaimedMessage,
    Delivery,
    Message,
    PublicationStatus,
    PublishResult,
)

Clock = Callable[[], datetime]
"""The time: aware, UTC, in whole milliseconds."""

Sleep = Callable[[float], Awaitable[None]]
"""Waits that many seconds."""

Monotonic = Callable[[], float]
"""Seconds since some moment of this process's own: it never goes back, and is for measuring only."""

Jitter = Callable[[float, float], float]
"""Some number between the two, as `random.uniform` gives it."""


class Resource(Protocol):
    """What adapters work with and somebody has to open: a file, a connection."""

    @abstractmethod
    async def open(self) -> None:
        """Make it ready for the service that owns it. Raises `Misconfigured` or `Unavailable`."""

    async def attach(self) -> None:
        """Make it ready for a command beside that service; here, nothing is needed.

        Raises `Misconfigured` or `Unavailable`.
        """
        return

    @abstractmethod
    async def close(self) -> None:
        """Let go of it. A second call does nothing."""


class Telemetry(Protocol):
    """Records what happened, for people who watch: logs and counters. Never raises and never blocks.

    A detail that is a callable is called, without arguments, only where somebody reads it.
    """

    @abstractmethod
    def __call__(self, event: str, /, **details: object) -> None: ...


@runtime_checkable
class Monitored(Protocol):
    """A resource with threads. Readiness asks all that are open; the service, too, and ends with a thread."""

    @abstractmethod
    def check_alive(self) -> None:
        """Raise `Unavailable` while it cannot work, another error once a thread has ended. Never waits."""


Waiting = tuple[datetime, str]
"""When an unpublished event was saved, and its subject: its place among all that wait."""


class Outbox(Protocol):
    """The saved events that are not yet published."""

    @abstractmethod
    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        """Hand over up to `limit` events, one at least, waiting until there are any.

        Wakes as soon as something is saved. Finds what a dead process left behind, and what a save with an
        unknown outcome kept. Within its lease, each event is handed to one caller. The first time, events of
        one key come in the order of their saves; a repeat may come at any time. What cannot be read is handed
        over as a message without a type, beside the others. Raises `Unavailable`.
        """

    @abstractmethod
    async def confirm(self, published: Sequence[PublishResult]) -> None:
        """Forget exactly these events, and note where each was published. Unknown ones are ignored.

        Raises `Unavailable`; what was not forgotten is handed over again.
        """

    @abstractmethod
    async def waiting(
        self, limit: int, before: datetime | None = None, after: Waiting | None = None
    ) -> Sequence[Waiting]:
        """Up to `limit` of those saved before that moment, the longest waiting first, from behind `after`.

        Of several events about one subject, the last one saved may stand for all. Raises `Unavailable`.
        """

    async def oldest(self) -> datetime | None:
        """When the oldest unpublished event was saved; None if all are published. Raises `Unavailable`."""
        return next((saved_at for saved_at, _ in await self.waiting(1)), None)

    @abstractmethod
    async def count(self, limit: int) -> int:
        """How many events are unpublished, counted up to `limit`. Raises `Unavailable`."""

    @abstractmethod
    async def status(self, event: Message) -> PublicationStatus | None:
        """When this event was last saved, and when and where it was published since; None if never saved.

        If it is published, `saved_at` may be that of a later event about the same subject. Raises
        `Unavailable`.
        """


class Publisher(Protocol):
    """The way out of a context.

    A message that is published again arrives again. A position names its log: in a log that was made anew,
    no message has the position of an earlier one.
    """

    @abstractmethod
    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        """Return the results, in order, once the whole batch is safe on the other side. An empty batch is.

        Raises `Unavailable` when that is unknown: any part may have arrived, and repeating is safe.
        Raises `Refused` when the batch itself is the reason: one of its messages can never be published.
        """


class Subscription(Protocol):
    """The way into a context, for one group of consumers: at least once, in order per key.

    Key, headers and value of a delivery read back as its message (`cloudevents.message`). While a member of a
    group holds a message, no other member is handed a later one of its key; a transport may declare one
    member a group, and raises `Misconfigured` if a second opens. In a log made anew, a group starts anew.
    """

    @abstractmethod
    async def receive(self) -> Sequence[Delivery]:
        """Hand over the next batch, one delivery at least, waiting until there is one.

        A batch that was not acknowledged comes again, and stays held however long the work on it takes.
        Cancelling the wait loses nothing. Raises `Unavailable`; after that it returns an empty batch once the
        log answers again and has nothing.
        """

    @abstractmethod
    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        """Never hand these to the group again, unless another member has taken them over meanwhile.

        Does nothing for an empty batch, or one that is not held any more. Raises `Unavailable`: then they may
        come again.
        """
