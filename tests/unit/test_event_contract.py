"""No change of the event breaks who reads it, or who wrote it: see `contracts/events/gate.py`."""

import json
import re
from typing import Any

import msgspec
import pytest
from contracts.events.gate import FOLDER, GOLDEN, SCHEMA, Code, Record, breaks, digest_of, golden, read, write
from msgspec.structs import asdict, replace

from clinic.domain.events import AppointmentFinished
from clinic.entrypoints.containers import AppointmentContainer
from clinic.entrypoints.settings import Settings
from clinic.entrypoints.web import events

DOCUMENT = events.sent(AppointmentContainer(settings=Settings()).channel()).document
TODAY = Code(write, read, DOCUMENT["components"]["schemas"]["FinishedData"])


def with_data(record: Record, **changes: Any) -> Record:
    """The record with some of its data changed; None takes a field away."""
    data = {name: value for name, value in (json.loads(record.value) | changes).items() if value is not None}
    return replace(record, value=json.dumps(data))


def written(**changes: Any) -> Code:
    """Today's code, where every event is written with these changes."""
    return replace(TODAY, write=lambda event: with_data(write(event), **changes))


def described(**changes: Any) -> Code:
    """Today's code, where these fields are described like that."""
    properties = {name: TODAY.schema["properties"].get(name, {}) | said for name, said in changes.items()}
    return replace(TODAY, schema={**TODAY.schema, "properties": TODAY.schema["properties"] | properties})


def required(*names: str) -> Code:
    return replace(TODAY, schema={**TODAY.schema, "required": names})


def read_with_a_room(record: Record) -> AppointmentFinished | None:
    """A reader that needs one field more."""
    msgspec.json.decode(record.value, type=msgspec.defstruct("Grown", [("room", str)]))
    return read(record)


def read_without_numbers(record: Record) -> AppointmentFinished | None:
    """A reader that takes fewer prices."""
    msgspec.json.decode(record.value, type=msgspec.defstruct("Narrowed", [("price", str, "")]))
    return read(record)


def read_in_cents(record: Record) -> AppointmentFinished | None:
    """A reader to whom the price is something else."""
    found = read(record)
    return found and replace(found, price=found.price * 100)


def write_a_second_version(event: AppointmentFinished) -> Record:
    """A writer of a type that nobody can read yet."""
    record = write(event)
    type_ = "clinic.appointment.finished.v2"
    return replace(record, headers=[*record.headers, ("ce_type", type_)])


Grown = msgspec.defstruct(
    "Grown", [("room", str, "12")], bases=(AppointmentFinished,), frozen=True, kw_only=True
)
"""Today's event with a field more."""

FROZEN = {
    "v1-by-hand.json": "46548938e46a9126",
    "v1-first.json": "99f31efef663d583",
    "v1-grown.json": "f748d3f4ce5b687a",
    "v1-moment.json": "a7f50e355bb48377",
    "v1-recordedtime.json": "2755aeef59d9defa",
    "v1-structured.json": "df4f0955707bc355",
    "v1-traced.json": "57f81c294eb0ae63",
    "v1.schema.json": "3f8d07fc3a9dad6f",
    "readers/v1": "0709c76e6964b418",
}
FIELDS = tuple(TODAY.schema["required"])

BREAKING = {
    "a field is written no more": (written(price=None), "a consumer .* not upgraded .*`price`"),
    "a field is written in another form": (written(start=1606827600), r"a consumer .*`\$.start`"),
    "a field means something else": (written(price="1.00"), "price is 1.00, not 200.00"),
    "a reader needs a new field": (replace(TODAY, read=read_with_a_room), "golden/v1-first.* `room`"),
    "a reader takes less": (replace(TODAY, read=read_without_numbers), "golden/v1-by-hand.* `str`"),
    "a reader understands something else": (replace(TODAY, read=read_in_cents), "price is 20000.00, not"),
    "a reader ignores what it took": (replace(TODAY, read=lambda _: None), "golden/v1-first.* ignored"),
    "a field is required": (required(*FIELDS, "room"), "room is required now"),
    "a field is promised no more": (required(*FIELDS[1:]), "appointment_id is not promised any more"),
    "a field is narrowed": (described(price={"maxLength": 6}), "price was .* and is .*maxLength"),
    "a version appears from nowhere": (
        replace(TODAY, write=write_a_second_version), "finished.v2' has no frozen reader"
    ),
}  # fmt: skip
COMPATIBLE = {
    "nothing": TODAY,
    "a field is added": written(room="12", ward={"floor": [1, 2]}),
    "the event has a field more": replace(TODAY, events=[Grown(**asdict(event)) for event in TODAY.events]),
    "a field is described that need not be there": described(room={"type": "string"}),
    "a description is better": described(price={"description": "The price of an hour."}),
    "a header is added": replace(
        TODAY,
        write=lambda event: replace(
            write(event), headers=[*write(event).headers, ("ce_traceparent", "00-1")]
        ),
    ),
}


@pytest.mark.parametrize("change", COMPATIBLE)
def test_a_compatible_change_breaks_nobody(change: str) -> None:
    assert breaks(COMPATIBLE[change]) == []


@pytest.mark.parametrize("change", BREAKING)
def test_a_breaking_change_is_told_with_whom_it_breaks(change: str) -> None:
    code, wanted = BREAKING[change]
    told = breaks(code)
    assert [sentence for sentence in told if re.search(wanted, sentence)], told


def test_the_first_golden_bytes_are_still_those_that_are_written() -> None:
    first = golden()["v1-first.json"]
    event = read(first)
    assert event
    assert msgspec.to_builtins(write(event)) == msgspec.to_builtins(
        Record(first.key, first.headers, first.value)
    )


def test_what_is_frozen_is_never_changed() -> None:
    """A golden file, or a reader, is added with its digest. None is edited."""
    found = {file.name: digest_of([file]) for file in GOLDEN.iterdir()}
    found["v1.schema.json"] = digest_of([SCHEMA])
    found["readers/v1"] = digest_of((FOLDER / "readers" / "v1").glob("*.py"))
    assert found == FROZEN
