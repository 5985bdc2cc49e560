"""Facts on their way from one context to another: their shapes, and the ports that carry them.

Times here are operational: aware UTC, in milliseconds.
"""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, Generic, Literal, Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from clinic.domain.money import Money

Fact = TypeVar("Fact")

Clock = Callable[[], datetime]
"""Tells the time: aware, UTC, in whole milliseconds."""

Pause = Callable[[float], Awaitable[None]]
"""Waits that many seconds."""


class Notices(Protocol):
    """Is told what happened, for people who watch: logs and counters. Never raises."""

    @abstractmethod
    def __call__(self, what: str, /, **details: object) -> None: ...


class Message(Struct, frozen=True, kw_only=True):
    """A fact as it travels: the attributes of CloudEvents 1.0, the key that keeps its order, its data.

    What a stranger wrote may lack any of them: then `type` is empty, `time` or `data` None.
    """

    id: str
    type: str
    source: str
    subject: str
    time: datetime | None
    key: str
    data: bytes | None


class Claimed(Struct, frozen=True):
    """A saved fact that a relay holds, until a moment of its own monotonic clock (`time.monotonic`, seconds)."""

    message: Message
    until: float


class Published(Struct, frozen=True):
    """A message, where the other side keeps it, and since when."""

    message: Message
    position: str
    at: datetime


class Telling(Struct, frozen=True):
    """When a fact was saved, and when and where it was published since; None while it waits to be."""

    saved_at: datetime
    published_at: datetime | None = None
    position: str | None = None


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened on the way from an appointment to its charge.

    `at` is in whole seconds for `started` and `finished`, else in milliseconds. `position` is a place in the transport.
    """

    what: Literal["started", "finished", "saved", "published", "received", "charged", "set aside", "replayed", "failed again", "discarded"]
    at: datetime
    position: str | None = None
    attempts: int | None = None
    total: Money | None = None
    by: str | None = None
    note: str | None = None


class Trace(Struct, frozen=True):
    """What one context knows of the way to a charge: its steps, what it waits for there, and a sentence about that.

    `waits_for` is None where it does not wait there, and is not at its end either.
    """

    steps: Sequence[Step]
    waits_for: Literal["to be finished", "to be published", "a person", "nothing"] | None
    explanation: str


class Origin(Struct, frozen=True, kw_only=True):
    """Where a message came from: its place in the transport (the same at each redelivery), when, at which try."""

    position: str
    published_at: datetime
    received_at: datetime
    attempts: int = 1


class Delivery(Struct, frozen=True, kw_only=True):
    """A message as it arrived, beside the raw key, headers and value that it was read from."""

    message: Message
    origin: Origin
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None


class Told(Struct, Generic[Fact], frozen=True):
    """A fact that was read, and where it came from."""

    fact: Fact
    origin: Origin


LetterState = Literal["waiting", "replayed", "discarded"]
FOLLOWS: Final[dict[str, LetterState]] = {"replayed": "replayed", "discarded": "discarded"}
"""The state that follows from what a person did; after anything else it is what it was."""


class Handling(Struct, frozen=True):
    """What a person did with a dead letter; `note` says what came of it, or why."""

    what: Literal["replayed", "failed again", "discarded"]
    by: str
    at: datetime
    note: str


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A delivery that no retry can save. `attempts` counts how often it arrived.

    `value` holds at most 1 MiB of what came; `length` and `sha256` speak of all of it. `about` is the appointment, as far
    as could be read: the message's subject or else its key. Letters of one `group` have the same reason but for what varies.
    """

    position: str
    about: str
    type: str
    published_at: datetime
    message_id: str
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None
    length: int
    sha256: str
    reason: str
    group: str
    attempts: int
    first_seen: datetime
    last_seen: datetime
    state: LetterState = "waiting"
    handled: tuple[Handling, ...] = ()

    def listed(self) -> "DeadLetter":
        """As a list shows it: without the value, however large."""
        return replace(self, value=None)

    def settled(self, handling: Handling) -> "DeadLetter":
        """As it is after this handling."""
        return replace(self, state=FOLLOWS.get(handling.what, self.state), handled=(*self.handled, handling))


class WantedLetters(Struct, frozen=True):
    """Which dead letters a list shows: those that meet every condition that is set."""

    state: LetterState | None = None
    group: str | None = None
    about: str | None = None
    message_ids: tuple[str, ...] | None = None
    """The message is one of these."""


class LetterGroup(Struct, frozen=True, kw_only=True):
    """The dead letters of one group: how many in which state, one of their reasons, the first and the last sight of any."""

    group: str
    waiting: int
    replayed: int
    discarded: int
    reason: str
    first_seen: datetime
    last_seen: datetime


class Outbox(Protocol):
    """The saved facts that are not yet published."""

    @abstractmethod
    async def claim(self, limit: int) -> Sequence[Claimed]:
        """Hand over up to `limit` facts, one at least, waiting until there are any.

        Wakes as soon as something is saved, and finds by itself what a dead process left behind and what a save
        with an unknown outcome did keep. Within its lease, each fact is handed to one caller. The first time, facts
        of one key come in the order of their saves; a repeat may come at any time.
        Raises `Unavailable`.
        """

    @abstractmethod
    async def confirm(self, published: Sequence[Published]) -> None:
        """Forget exactly these facts, and note where each was published. One that is unknown is passed over.

        Raises `Unavailable`; what was not forgotten is handed over again.
        """

    @abstractmethod
    async def oldest(self) -> datetime | None:
        """When the oldest unpublished fact was saved; None where all are published. Raises `Unavailable`."""

    @abstractmethod
    async def told(self, fact: Message) -> Telling | None:
        """When this fact was last saved, and when and where it was published since; None where it never was saved.

        Of one that is published, `saved_at` may be that of a later fact about the same subject. Raises `Unavailable`.
        """


class Publisher(Protocol):
    """The way out of a context."""

    @abstractmethod
    async def publish(self, batch: Sequence[Message]) -> Sequence[Published]:
        """Return, one for each in order, once the whole batch is safe on the other side.

        Raises `Unavailable` when that is unknown: any part may have arrived, and repeating is safe.
        Raises `Refused` when the batch itself is the reason: one of its messages can never be published.
        """


class Subscription(Protocol):
    """The way into a context, for one group of consumers: at least once, in order per key."""

    @abstractmethod
    async def receive(self) -> Sequence[Delivery]:
        """Hand over the next batch, one delivery at least, waiting until there is one.

        A batch that was not acknowledged comes again. Cancelling the wait loses nothing. Raises `Unavailable`.
        """

    @abstractmethod
    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        """Never hand these to the group again, unless another member has taken them over meanwhile.

        Raises `Unavailable`: then they may come again.
        """


class DeadLetters(Protocol):
    """What no retry can save, kept for a person. Nothing removes a letter. Every call raises `Unavailable`."""

    @abstractmethod
    async def keep(self, letters: Sequence[DeadLetter]) -> None:
        """Keep each under its position. One that is there already keeps its first sight, its state and its handlings;
        it gains attempts, and has the reason and the group of the last one.

        Raises nothing but `Unavailable`.
        """

    @abstractmethod
    async def get(self, position: str) -> DeadLetter:
        """The letter at this position. Raises `NotFound`."""

    @abstractmethod
    async def page(self, wanted: WantedLetters, limit: int, after: str = "") -> Sequence[DeadLetter]:
        """Up to `limit` of the wanted letters by position, from behind `after`; each without its value, which `get` shows."""

    @abstractmethod
    async def groups(self) -> Sequence[LetterGroup]:
        """Every group that there is, by name."""

    @abstractmethod
    async def settle(self, letter: DeadLetter, handling: Handling) -> None:
        """Note the handling on the letter, and the state that follows.

        Raises `Conflict` where it was handled since it was read: that handling stands. Raises `NotFound`.
        """
