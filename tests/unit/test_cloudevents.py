"""A message as CloudEvents headers and a value, and back, whoever wrote it."""

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic.adapters import cloudevents
from clinic.adapters.cloudevents import CORE, MAX_EXTENSION, MAX_EXTENSIONS
from clinic.domain.events import FINISHED_V1, from_message, to_message
from clinic.domain.messaging.messages import Message
from clinic.testing.builders import EXTENSIONS, TWO_O_CLOCK, a_message


def structured(**event: object) -> Message:
    return cloudevents.message(
        b"key", [("content-type", b"application/cloudevents+json; charset=UTF-8")], json.dumps(event).encode()
    )


def test_the_attributes_become_headers_of_the_binding() -> None:
    message = a_message(id="1", subject="s")
    assert cloudevents.headers(message) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", b"clinic/appointment"),
        ("ce_type", FINISHED_V1.encode()),
        ("ce_time", b"2020-12-01T14:00:00Z"),
        ("ce_subject", b"s"),
        ("ce_traceparent", EXTENSIONS[0][1].encode()),
        ("content-type", b"application/json"),
    ]


texts = st.text(st.characters(codec="utf-8"))
names = st.text("abcxyz019", min_size=1, max_size=20).filter(lambda name: name not in CORE)


@given(
    texts,
    texts,
    texts,
    texts,
    texts,
    st.none() | st.datetimes(timezones=st.timezones()).filter(lambda each: each.utcoffset() is not None),
    st.none() | st.binary(),
    st.dictionaries(names, texts.filter(bool), max_size=MAX_EXTENSIONS),
)
def test_what_was_written_is_read_as_it_was(
    id_: str,
    type_: str,
    source: str,
    subject: str,
    key: str,
    time: object,
    data: bytes | None,
    extensions: dict[str, str],
) -> None:
    utc = time.astimezone(TWO_O_CLOCK.tzinfo) if time and 1 < time.year < 9999 else None  # type: ignore[attr-defined]
    message = Message(
        id=id_,
        type=type_,
        source=source,
        subject=subject,
        time=utc,
        key=key,
        data=data,
        extensions=tuple(extensions.items()),
    )
    assert cloudevents.message(key.encode(), cloudevents.headers(message), data) == message


def test_a_repeated_header_counts_as_its_last_and_a_null_one_as_missing() -> None:
    found = cloudevents.message(
        None, [("ce_id", b"1"), ("CE_ID", b"2"), ("ce_type", b"t"), ("ce_type", None)], b"x"
    )
    assert (found.id, found.type, found.key, found.data) == ("2", "", "", b"x")


FOREIGN: dict[str, object] = {
    "specversion": "1.0",
    "datacontenttype": "text/plain",
    "dataschema": "https://example.com",
    "recordedtime": "2020-12-01T14:00:00.007Z",
    "n" * 21: "a long name",
    "under_score": "no such name",
    "Capital": "in a header, letters have no case",
    "empty": "",
    "long": "x" * (MAX_EXTENSION + 1),
    "longest": "x" * MAX_EXTENSION,
}
EXPECTED = [("recordedtime", FOREIGN["recordedtime"]), ("longest", FOREIGN["longest"])]


def test_foreign_extensions_are_read_within_bounds() -> None:
    raw = [(f"CE_{name}", str(value).encode()) for name, value in FOREIGN.items()]
    capital = ("capital", FOREIGN["Capital"])
    assert cloudevents.message(None, raw, b"").extensions == (EXPECTED[0], capital, EXPECTED[1])
    many = [(f"ce_e{number}", b"x") for number in range(100_000)]
    assert cloudevents.message(None, many, b"").extensions == tuple(
        (f"e{number}", "x") for number in range(MAX_EXTENSIONS)
    )


def test_a_structured_event_has_its_extensions_as_strings() -> None:
    typed: dict[str, object] = {
        "partition": 7,
        "sampled": True,
        "unset": None,
        "list": [],
        "float": 1.5,
        "huge": 10**1000,
    }
    found = structured(**FOREIGN, **typed, data={"id": 1}).extensions
    huge = ("huge", str(10**1000))
    assert found == (*EXPECTED, ("partition", "7"), ("sampled", "true"), huge)


def test_what_is_no_cloud_event_comes_without_a_type() -> None:
    found = cloudevents.message(b"\xff", [("type", b"x")], b"value")
    assert found == Message(id="", type="", source="", subject="", time=None, key="\ufffd", data=b"value")


def test_a_structured_event_is_read_like_a_binary_one() -> None:
    binary = seal_data(a_message())
    found = structured(
        specversion="1.0", id=binary.id, type=binary.type, source=binary.source, subject=binary.subject,
        time="2020-12-01T14:00:00Z", data=json.loads(binary.data or b""),
    )  # fmt: skip
    assert from_message(found) == from_message(binary)
    assert (found.id, found.time, found.key) == (binary.id, TWO_O_CLOCK, "key")


def seal_data(message: Message) -> Message:
    event = from_message(message)
    assert event
    return to_message(event)


def test_a_structured_event_may_carry_base64_or_no_data() -> None:
    assert structured(id="1", type="t", data_base64="aGk=").data == b"hi"
    assert structured(id="1", type="t").data == b""


@pytest.mark.parametrize(
    "odd", [{"id": 7}, {"type": None}, {"time": "yesterday"}, {"time": 5}, {"extension": {"a": [1]}}], ids=str
)
def test_odd_attributes_count_as_missing(odd: dict[str, object]) -> None:
    (name,) = odd
    assert getattr(structured(**odd), name, "") in ("", None)


@pytest.mark.parametrize(
    "value",
    [None, b"", b"{", b"[]", b'{"data_base64": "?"}', b'{"type": "\xff"}', b'{"a":' * 100_000],
    ids=lambda value: repr(value)[:20],
)
def test_a_structured_event_that_cannot_be_read_comes_without_a_type_and_whole(value: bytes | None) -> None:
    found = cloudevents.message(None, [("Content-Type", b"application/cloudevents+json")], value)
    assert (found.type, found.data) == ("", value)


@given(
    st.none() | st.binary(),
    st.lists(
        st.tuples(
            st.sampled_from(["ce_type", "ce_time", "content-type"]) | st.text(),
            st.none() | st.binary() | st.just(b"application/cloudevents+json"),
        )
    ),
    st.none() | st.binary(),
)
def test_nothing_that_arrives_can_break_its_reader(
    key: bytes | None, headers: list[tuple[str, bytes | None]], value: bytes | None
) -> None:
    assert isinstance(cloudevents.message(key, headers, value), Message)


def test_the_time_of_an_event_is_cut_to_microseconds_not_rounded() -> None:
    found = cloudevents.message(None, [("ce_time", b"2020-12-01T13:59:59.9999999Z")], None)
    assert found.time == TWO_O_CLOCK - timedelta(microseconds=1)
