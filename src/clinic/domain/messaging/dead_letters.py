"""What no retry can save: its shapes, and the port that keeps it for a person."""

import hashlib
import re
from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from clinic.domain.messaging.messages import Message

MAX_NAME = 200


VARIES = re.compile(
    r"""[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|'.*'|".*"|\d[\d:.,TZ+-]*""",
    re.IGNORECASE | re.DOTALL,
)
"""What differs between two reasons of one kind: ids, numbers, dates, and all from the first quote to the last
one like it: what
strangers wrote may have quotes of its own."""


LetterState = Literal["waiting", "replayed", "discarded"]


NEXT_STATE: Final[dict[str, LetterState]] = {"replayed": "replayed", "discarded": "discarded"}
"""The state that follows from what a person did; after anything else it is what it was."""


class HistoryEntry(Struct, frozen=True):
    """What a person did with a dead letter; `note` says what came of it, or why."""

    event: Literal["replayed", "failed again", "discarded"]
    by: str
    at: datetime
    note: str


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A delivery that no retry can save. `attempts` counts how often it arrived.

    `value` holds at most 1 MiB of what came; `length` and `sha256` speak of all of it. `about` is the
    appointment, as far
    as could be read: the message's subject or else its key. Letters of one `group` have the same reason but
    for what varies.
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
    history: tuple[HistoryEntry, ...] = ()

    def listed(self) -> "DeadLetter":
        """As a list shows it: without the value, however large."""
        return replace(self, value=None)

    def with_entry(self, entry: HistoryEntry) -> "DeadLetter":
        """As it is after this handling."""
        return replace(self, state=NEXT_STATE.get(entry.event, self.state), history=(*self.history, entry))


class DeadLetterFilter(Struct, frozen=True):
    """Which dead letters a list shows: those that meet every condition that is set."""

    state: LetterState | None = None
    group: str | None = None
    about: str | None = None
    message_ids: tuple[str, ...] | None = None
    """The message is one of these."""


class LetterGroup(Struct, frozen=True, kw_only=True):
    """The dead letters of one group: how many in which state, one of their reasons, the first and the last
    sight of any.
    """

    group: str
    waiting: int
    replayed: int
    discarded: int
    reason: str
    first_seen: datetime
    last_seen: datetime


class DeadLetters(Protocol):
    """What no retry can save, kept for a person. Nothing removes a letter. Every call raises
    `Unavailable`.
    """

    @abstractmethod
    async def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep each under its position. One that is there already keeps its first sight, its state and its
        handlings;
        it gains attempts, and has the reason and the group of the last one.

        Raises nothing but `Unavailable`.
        """

    @abstractmethod
    async def get(self, position: str) -> DeadLetter:
        """The letter at this position. Raises `NotFound`."""

    @abstractmethod
    async def page(self, matching: DeadLetterFilter, limit: int, after: str = "") -> Sequence[DeadLetter]:
        """Up to `limit` of the wanted letters by position, from behind `after`; each without its value, which
        `get` shows.
        """

    @abstractmethod
    async def groups(self) -> Sequence[LetterGroup]:
        """Every group that there is, by name."""

    @abstractmethod
    async def record(self, letter: DeadLetter, entry: HistoryEntry) -> None:
        """Note the handling on the letter, and the state that follows.

        Raises `Conflict` where it was handled since it was read: that handling stands. Raises `NotFound`.
        """


def about(message: Message) -> str:
    """The appointment that a message is about, as far as can be read; not more of it than a name has."""
    return (message.subject or message.key)[:MAX_NAME]


def fingerprint(reason: str) -> str:
    """The group of a reason: eight hexadecimal digits, the same for reasons that differ only in what
    varies.
    """
    return hashlib.sha256(VARIES.sub("#", reason).encode()).hexdigest()[:8]
