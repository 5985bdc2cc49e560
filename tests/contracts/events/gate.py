"""Whom a change of the event would break: today's code against golden bytes, a frozen reader and its schema.

Tools that compare schemas call compatible growth breaking. Here the real readers decide.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from clinic.adapters import cloudevents
from clinic.domain import events
from clinic.domain.errors import Unreadable
from clinic.domain.events import AppointmentFinished
from clinic.domain.money import LIMIT, Money
from contracts.events.readers.v1 import cloudevents as cloudevents_v1
from contracts.events.readers.v1 import errors as errors_v1
from contracts.events.readers.v1 import events as events_v1

FOLDER: Final = Path(__file__).parent
GOLDEN: Final = FOLDER / "golden"
SCHEMA: Final = FOLDER / "v1.schema.json"
SAID_ONLY: Final = frozenset({"description", "title", "examples"})
"""Words of a schema that rule out nothing."""

Read = Callable[["Record"], object]


class Record(Struct, frozen=True):
    """A message as a transport keeps it."""

    key: str
    headers: Sequence[tuple[str, str]]
    value: str

    @property
    def raw(self) -> tuple[bytes, list[tuple[str, bytes]], bytes]:
        return self.key.encode(), [(name, text.encode()) for name, text in self.headers], self.value.encode()


class Golden(Record, frozen=True):
    """A message that was really written once, why it is here, and the event that it is for ever."""

    about: str
    event: dict[str, str]


def write(event: AppointmentFinished) -> Record:
    message = events.to_message(event)
    headers = [(name, text.decode()) for name, text in cloudevents.headers(message)]
    return Record(message.key, headers, (message.data or b"").decode())


def read(record: Record) -> AppointmentFinished | None:
    return events.from_message(cloudevents.message(*record.raw))


def read_v1(record: Record) -> events_v1.AppointmentFinished | None:
    return events_v1.read(cloudevents_v1.message(*record.raw))


READERS: Final[Mapping[str, tuple[Read, type[Struct]]]] = {
    events_v1.FINISHED_V1: (read_v1, events_v1.AppointmentFinished)
}
"""The frozen reader of each type, and what it makes of an event."""

_start = datetime(2020, 12, 1, 13, tzinfo=UTC)
EVENTS: Final = tuple(
    AppointmentFinished(
        appointment_id=UUID(int=number + 1),
        physician_id=UUID(int=2**128 - 1),
        patient_id=UUID(int=3),
        price=Money.of_cents(cents),
        start=start,
        end=start + lasts,
    )
    for number, (cents, start, lasts) in enumerate([
        (20_000, _start, timedelta(hours=1)),
        (0, _start, timedelta()),
        (1, _start, timedelta(seconds=1)),
        (LIMIT - 1, datetime(1, 1, 2, tzinfo=UTC), timedelta(days=3_000_000)),
        (33_333, datetime(9999, 12, 30, tzinfo=UTC), timedelta(hours=23)),
    ])
)  # fmt: skip
"""What is written today, at its limits."""


class Code(Struct, frozen=True):
    """What writes and reads the event, how it is described, and what there is to write."""

    write: Callable[[AppointmentFinished], Record]
    read: Read
    schema: Mapping[str, Any]
    events: Sequence[AppointmentFinished] = EVENTS


def golden() -> dict[str, Golden]:
    """All that was ever written, by the names of their files."""
    return {
        file.name: msgspec.json.decode(file.read_bytes(), type=Golden, strict=False)
        for file in sorted(GOLDEN.glob("*.json"))
    }


def breaks(code: Code) -> list[str]:
    """A sentence on each thing that this code breaks, and for whom. Empty: all can go on as they are."""
    return [*_golden_bytes(code.read), *_older_consumers(code), *_promised(code.schema)]


def plain(event: Any) -> dict[str, str]:
    """An event of any version's class."""
    return {name: str(value) for name, value in asdict(event).items()}


def _golden_bytes(read: Read) -> Iterator[str]:
    for name, found in golden().items():
        if problem := _problem(read, found, found.event):
            yield (
                f"golden/{name} ({found.about}) is read no more, so what lies in topics, outboxes and dead "
                f"letters is never charged: {problem}"
            )


def _older_consumers(code: Code) -> Iterator[str]:
    """They know the fields of their day alone."""
    for event in code.events:
        record = code.write(event)
        type_ = dict(record.headers).get("ce_type", "")
        if type_ not in READERS:
            yield f"{type_!r} has no frozen reader: keep one and golden bytes, and announce it"
            continue
        reader, known = READERS[type_]
        wanted = {name: text for name, text in plain(event).items() if name in known.__struct_fields__}
        if problem := _problem(reader, record, wanted):
            yield (
                f"a consumer of {type_} that is not upgraded cannot use what is written today: {problem}; "
                f"write it under a new type"
            )


def _problem(read: Read, record: Record, wanted: Mapping[str, str]) -> str:
    try:
        found = read(record)
    except (Unreadable, errors_v1.ClinicError, msgspec.MsgspecError) as error:
        return str(error)
    if found is None:
        return "it is ignored"
    seen = plain(found)
    changed = [name for name, text in wanted.items() if seen.get(name) != text]
    return ", ".join(f"{name} is {seen.get(name)}, not {wanted[name]}" for name in changed)


def _promised(schema: Mapping[str, Any]) -> Iterator[str]:
    """Against the first schema: what was required is, nothing else is, no field became another."""
    first = json.loads(SCHEMA.read_bytes())
    required, promised = set(schema["required"]), set(first["required"])
    for name in sorted(required - promised):
        yield f"{name} is required now: older events and other producers, without it, are refused"
    for name in sorted(promised - required):
        yield f"{name} is not promised any more: consumers that need it fail; write it under a new type"
    for name, was in first["properties"].items():
        now = schema["properties"].get(name)
        if now is not None and _said(now) != _said(was):
            yield f"{name} was {_said(was)} and is {_said(now)}: who checks it fails; write a new type"


def _said(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {word: value for word, value in schema.items() if word not in SAID_ONLY}


def digest_of(files: Iterable[Path]) -> str:
    """Of their names and bytes."""
    found = hashlib.sha256()
    for file in sorted(files):
        found.update(file.name.encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:16]
