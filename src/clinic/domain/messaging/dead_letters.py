"""Messages that no retry can save: their shape, and the port that keeps them for a person."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal, NamedTuple, Protocol

from msgspec import Meta, Struct
from msgspec.structs import replace

from clinic.domain.errors import Refused
from clinic.domain.messaging.messages import Delivery

MAX_VALUE: Final = 1024 * 1024
"""Bytes of a message's value that a letter keeps."""
MAX_HEADERS: Final = 1024 * 1024
"""Bytes of a message's key and headers together that a letter keeps: it has to fit a store's record."""
HEADER_SIZE: Final = 64
"""Bytes that a header counts beside its name and content, so that empty headers have a bound, too."""
MAX_NAME: Final = 200
"""Characters that are kept of a name: a type, an id, a subject."""
MAX_TEXT: Final = 2000
"""Characters that are kept of a sentence."""
MAX_HISTORY: Final = 100
"""Entries of a letter's history that `get` returns: the newest."""

LetterState = Literal["waiting", "replayed", "discarded"]
Headers = tuple[tuple[str, bytes | None], ...]

NEXT_STATE: Final[dict[str, LetterState]] = {"replayed": "replayed", "discarded": "discarded"}
"""The state after an entry; any other entry leaves the state as it is."""


class HistoryEntry(Struct, frozen=True):
    """What a person did with a dead letter; `note` says what the result was, or why."""

    event: Literal["replayed", "failed again", "discarded"]
    by: str
    at: datetime
    note: str


class HistoryCursor(NamedTuple):
    """Of an entry among those of all letters; `number` counts its letter's from 0."""

    at: Annotated[datetime, Meta(tz=True)]
    position: str
    number: int


RecordedEntry = tuple[HistoryCursor, HistoryEntry]


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A message that no retry can save.

    `about` is the appointment, as far as can be read: the message's subject, or else its key. `value` holds
    at most `MAX_VALUE` bytes; `length` is that of all of it. `sha256` is the data's: the same whenever the
    event is published again. `cut` says that key or headers are not complete. `attempts` counts arrivals,
    `first_seen` and `last_seen` are the times of the first and last one. `entries` counts the whole history;
    `history` holds its newest entries, the oldest of them first.
    """

    position: str
    about: str
    type: str
    published_at: datetime
    message_id: str
    key: bytes | None
    headers: Headers
    value: bytes | None
    length: int
    sha256: str
    cut: bool = False
    reason: str
    code: str
    group: str
    attempts: int = 1
    first_seen: datetime
    last_seen: datetime
    state: LetterState = "waiting"
    entries: int = 0
    history: tuple[HistoryEntry, ...] = ()

    def listed(self) -> "DeadLetter":
        """As a list shows it: without value and history, however large."""
        return replace(self, value=None, history=())

    def arrived_again(self, letter: "DeadLetter") -> "DeadLetter":
        """This letter after another arrival, or after a retry of the last one, which does not count again."""
        return replace(
            self,
            reason=letter.reason,
            code=letter.code,
            group=letter.group,
            attempts=self.attempts + (letter.last_seen > self.last_seen),
            last_seen=max(letter.last_seen, self.last_seen),
        )

    def with_entry(self, entry: HistoryEntry) -> "DeadLetter":
        """This letter after one more entry of its history."""
        return replace(
            self,
            state=NEXT_STATE.get(entry.event, self.state),
            entries=self.entries + 1,
            history=(*self.history, entry)[-MAX_HISTORY:],
        )


class DeadLetterFilter(Struct, frozen=True):
    """Which dead letters a list shows: those that meet every condition that is set."""

    state: LetterState | None = None
    group: str | None = None
    about: str | None = None
    message_id: str | None = None


class LetterGroup(Struct, frozen=True, kw_only=True):
    """The dead letters of a group: counts by state, one of their reasons, and when they were seen."""

    group: str
    waiting: int
    replayed: int
    discarded: int
    reason: str
    first_seen: datetime
    last_seen: datetime


class DeadLetters(Protocol):
    """Keeps dead letters for a person; nothing removes one. Calls raise `Unavailable`, reads `Unreadable`."""

    @abstractmethod
    async def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep each under its position, without history.

        A letter that is already there keeps everything but `reason`, `code` and `group`, which become those
        of the new one. If the new one was last seen later, this is another arrival: `last_seen` is updated
        and `attempts` counts one more. The same arrival, added again, never counts twice.
        """

    @abstractmethod
    async def get(self, position: str) -> DeadLetter:
        """The letter at this position, with the newest `MAX_HISTORY` entries. Raises `NotFound`."""

    @abstractmethod
    async def page(self, matching: DeadLetterFilter, limit: int, after: str = "") -> Sequence[DeadLetter]:
        """Up to `limit` matching letters by position, from behind `after`; without values and histories."""

    @abstractmethod
    async def groups(self) -> Sequence[LetterGroup]:
        """All groups, by name."""

    @abstractmethod
    async def record(self, letter: DeadLetter, entry: HistoryEntry) -> None:
        """Add the entry behind the `entries` of this letter, and change its state accordingly.

        The entry is a record of its own, and its key (position and number) is the lock: raises `Conflict` if
        somebody else added an entry since the letter was read. Entry and state may be two writes: after a
        crash between them, the next read completes the second. Raises `NotFound`.
        """

    @abstractmethod
    async def history(self, limit: int, after: HistoryCursor | None = None) -> Sequence[RecordedEntry]:
        """Up to `limit` entries of all letters, the newest first, from behind `after`."""


def letter_of(delivery: Delivery, reason: Refused) -> DeadLetter:
    """The dead letter of a message. All that a producer wrote in it is cut to a bound."""
    message, value = delivery.message, delivery.value or b""
    key, headers, cut = _cut(delivery.key, delivery.headers)
    return DeadLetter(
        position=delivery.origin.position,
        about=(message.subject or message.key)[:MAX_NAME],
        type=message.type[:MAX_NAME],
        published_at=delivery.origin.published_at,
        message_id=message.id[:MAX_TEXT],
        key=key,
        headers=headers,
        value=delivery.value and value[:MAX_VALUE],
        length=len(value),
        sha256=hashlib.sha256(message.data or b"").hexdigest(),
        cut=cut,
        reason=str(reason)[:MAX_TEXT],
        code=reason.code[:MAX_NAME],
        group=group_of(reason.code, message.type),
        first_seen=delivery.origin.received_at,
        last_seen=delivery.origin.received_at,
    )


def group_of(code: str, type_: str) -> str:
    """The group of a refusal: eight hexadecimal digits, made of its code and the message's type.

    There are few groups, whatever foreign producers write: codes are our own, and so is every type whose
    message is read at all. Only a `type-…` code is about a type that is not ours; it makes one group.
    """
    own_type = "" if code.startswith("type-") else type_
    return hashlib.sha256(f"{code} {own_type}".encode()).hexdigest()[:8]


def _cut(key: bytes | None, headers: Headers) -> tuple[bytes | None, Headers, bool]:
    """Key and headers within `MAX_HEADERS`. What makes the message readable is cut last, then the key."""
    left = MAX_HEADERS
    kept: dict[int, tuple[str, bytes | None]] = {}

    def keep(wanted: bool) -> None:
        nonlocal left
        for index, (name, content) in enumerate(headers):
            size = len(name.encode(errors="replace")) + HEADER_SIZE
            if _is_attribute(name) == wanted and size <= left:
                kept[index] = name, content and content[: left - size]
                left -= size + len(kept[index][1] or b"")

    keep(wanted=True)
    kept_key = key and key[:left]
    left -= len(kept_key or b"")
    keep(wanted=False)
    kept_headers = tuple(kept[index] for index in sorted(kept))
    return kept_key, kept_headers, (kept_key, kept_headers) != (key, headers)


def _is_attribute(name: str) -> bool:
    return name.lower().startswith("ce_") or name.lower() == "content-type"
