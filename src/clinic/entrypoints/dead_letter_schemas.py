"""How dead letters look to machines, over HTTP and from the command.

Large values are cut: a letter may have a mebibyte.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import asdict

from clinic.domain.financial.dead_letters import Outcome
from clinic.domain.messaging.dead_letters import (
    MAX_HISTORY,
    DeadLetter,
    HistoryEntry,
    LetterGroup,
    RecordedEntry,
)
from clinic.entrypoints import formats

MAX_VALUE_SHOWN = 4096
MAX_HEADER_SHOWN = 1024
MAX_HEADERS_SHOWN = 100
MAX_TEXT_SHOWN = 2000

Position = Annotated[
    str,
    Meta(
        description="Where the transport kept the message; names the letter.",
        examples=["clinic.appointments/0/17"],
    ),
]
About = Annotated[
    str,
    Meta(
        description="The appointment, as far as could be read.",
        examples=["84ab6121-c4a8-4684-8cc2-b03024ec0f1d"],
    ),
]
Group = Annotated[
    str,
    Meta(
        description="The same for letters that were refused for the same kind of reason.",
        examples=["9c1185a5"],
    ),
]
Reason = Annotated[str, Meta(examples=["the message names no event type"])]
State = Annotated[Literal["waiting", "replayed", "discarded"], Meta(examples=["waiting"])]
Count = Annotated[int, Meta(ge=0, examples=[1])]


class BytesResponse(Struct, frozen=True):
    """Some bytes: as text if they are UTF-8, else in hexadecimal digits.

    `cut` says that fewer than `length` bytes are shown.
    """

    encoding: Literal["text", "hex"]
    content: str
    length: Annotated[int, Meta(description="Bytes that came.", ge=0)]
    cut: bool


class HeaderResponse(Struct, frozen=True):
    """A header of the message; its value may be null."""

    name: str
    value: BytesResponse | None


class HistoryEntryResponse(Struct, frozen=True):
    """What a person did with the letter; the note says what came of it, or why."""

    event: Literal["replayed", "failed again", "discarded"]
    by: Annotated[str, Meta(examples=["anna"])]
    at: formats.Date
    note: Annotated[str, Meta(examples=["charged 400.00"])]


class RecordedEntryResponse(HistoryEntryResponse, frozen=True):
    """What a person did with one of the letters: the one at this position."""

    position: Position


class DeadLetterResponse(Struct, frozen=True):
    """A dead letter as a list shows it; `attempts` counts how often it arrived."""

    position: Position
    about: About
    type: Annotated[str, Meta(examples=["clinic.appointment.finished.v1"])]
    group: Group
    reason: Reason
    state: State
    attempts: Count
    first_seen: formats.Date
    last_seen: formats.Date


class DeadLetterDetails(DeadLetterResponse, frozen=True):
    """A dead letter with the message in it, cut where it is large, and what people did with it."""

    type: str  # as its published schema has it: without an example
    published_at: formats.Date
    message_id: str
    key: BytesResponse | None
    headers: Annotated[list[HeaderResponse], Meta(description=f"The first {MAX_HEADERS_SHOWN} at most.")]
    cut: Annotated[bool, Meta(description="Key and headers were too large to be kept completely.")]
    value: BytesResponse | None
    sha256: Annotated[
        str, Meta(description="Of the whole data: the same whenever the event is published again.")
    ]
    history: Annotated[list[HistoryEntryResponse], Meta(description=f"The newest {MAX_HISTORY} at most.")]


class GroupResponse(Struct, frozen=True):
    """The letters of one group: counts by state, one of their reasons, when the first and last were seen."""

    group: Group
    waiting: Count
    replayed: Count
    discarded: Count
    reason: Reason
    first_seen: formats.Date
    last_seen: formats.Date


class OutcomeResponse(Struct, frozen=True):
    """What became of a letter: `sentence` says `outcome` and `note` for a person."""

    position: Position
    about: About
    outcome: Literal[
        "charged",
        "already charged",
        "differs from its charge",
        "nothing to charge",
        "failed again",
        "discarded",
        "handled already",
    ]
    note: Annotated[str, Meta(examples=["400.00"])]
    sentence: Annotated[str, Meta(examples=["charged 400.00"])]


def bytes_response(content: bytes | None, most: int, length: int | None = None) -> BytesResponse | None:
    """The first `most` bytes of a content of `length` bytes."""
    if content is None:
        return None
    shown, length = content[:most], len(content) if length is None else length
    cut = len(shown) < length
    try:
        text = shown.decode()
    except UnicodeDecodeError as error:
        if not cut or error.end < len(shown) or not error.start:
            return BytesResponse("hex", shown.hex(), length, cut)
        text = shown[: error.start].decode()  # cut in the middle of a character
    return BytesResponse("text", text, length, cut)


def dead_letter_response(letter: DeadLetter) -> DeadLetterResponse:
    return DeadLetterResponse(
        position=letter.position,
        about=letter.about,
        type=letter.type,
        group=letter.group,
        reason=letter.reason[:MAX_TEXT_SHOWN],
        state=letter.state,
        attempts=letter.attempts,
        first_seen=formats.date(letter.first_seen),
        last_seen=formats.date(letter.last_seen),
    )


def dead_letter_details(letter: DeadLetter) -> DeadLetterDetails:
    return DeadLetterDetails(
        **asdict(dead_letter_response(letter)),
        published_at=formats.date(letter.published_at),
        message_id=letter.message_id[:MAX_TEXT_SHOWN],
        key=bytes_response(letter.key, MAX_HEADER_SHOWN),
        headers=[
            HeaderResponse(name[:MAX_TEXT_SHOWN], bytes_response(content, MAX_HEADER_SHOWN))
            for name, content in letter.headers[:MAX_HEADERS_SHOWN]
        ],
        cut=letter.cut,
        value=bytes_response(letter.value, MAX_VALUE_SHOWN, letter.length),
        sha256=letter.sha256,
        history=[_history_entry(entry) for entry in letter.history],
    )


def _history_entry(entry: HistoryEntry) -> HistoryEntryResponse:
    return HistoryEntryResponse(entry.event, entry.by, formats.date(entry.at), entry.note)


def recorded_entry(recorded: RecordedEntry) -> RecordedEntryResponse:
    cursor, entry = recorded
    return RecordedEntryResponse(entry.event, entry.by, formats.date(entry.at), entry.note, cursor.position)


def group_response(group: LetterGroup) -> GroupResponse:
    return GroupResponse(
        group=group.group,
        waiting=group.waiting,
        replayed=group.replayed,
        discarded=group.discarded,
        reason=group.reason[:MAX_TEXT_SHOWN],
        first_seen=formats.date(group.first_seen),
        last_seen=formats.date(group.last_seen),
    )


def outcome_response(outcome: Outcome) -> OutcomeResponse:
    return OutcomeResponse(outcome.position, outcome.about, outcome.outcome, outcome.note, outcome.sentence)
