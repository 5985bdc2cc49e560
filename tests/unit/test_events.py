"""The published language: the same bytes for ever, and nothing that arrives can break its reader."""

import json
import tracemalloc
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from clinic.domain.errors import Unreadable
from clinic.domain.events import FINISHED, FINISHED_V1, AppointmentFinished, from_message, to_message
from clinic.domain.messaging.messages import Message
from clinic.domain.money import LIMIT, Money
from clinic.testing.builders import ONE_O_CLOCK, TWO_O_CLOCK, a_message, an_event

GOLDEN_EVENT = AppointmentFinished(
    appointment_id=UUID("84ab6121-c4a8-4684-8cc2-b03024ec0f1d"),
    physician_id=UUID("11111111-1111-4111-8111-111111111111"),
    patient_id=UUID("22222222-2222-4222-8222-222222222222"),
    price=Money("200.00"),
    start=ONE_O_CLOCK,
    end=TWO_O_CLOCK,
)
GOLDEN_DATA = (
    b'{"appointment_id":"84ab6121-c4a8-4684-8cc2-b03024ec0f1d","physician_id":"11111111-1111-4111-8111-111111111111",'
    b'"patient_id":"22222222-2222-4222-8222-222222222222","price":"200.00",'
    b'"start":"2020-12-01T13:00:00Z","end":"2020-12-01T14:00:00Z"}'
)
GOLDEN = Message(
    id="2a1d2c78-6f6a-53ab-9524-5800e41c71ab",
    type="clinic.appointment.finished.v1",
    source="clinic/appointment",
    subject="84ab6121-c4a8-4684-8cc2-b03024ec0f1d",
    time=TWO_O_CLOCK,
    key="84ab6121-c4a8-4684-8cc2-b03024ec0f1d",
    data=GOLDEN_DATA,
)


def with_data(**changes: object) -> Message:
    """The golden message with some of its data changed; None takes a field away."""
    data = {name: value for name, value in (json.loads(GOLDEN_DATA) | changes).items() if value is not None}
    return replace(GOLDEN, data=json.dumps(data).encode())


def test_the_event_is_written_as_these_very_bytes() -> None:
    assert to_message(GOLDEN_EVENT) == GOLDEN


def test_these_very_bytes_are_read_as_the_event() -> None:
    assert from_message(GOLDEN) == GOLDEN_EVENT


def test_its_id_is_the_same_whenever_it_is_published() -> None:
    again = replace(GOLDEN_EVENT, end=TWO_O_CLOCK + timedelta(hours=1), price=Money("1.00"))
    assert again.id == GOLDEN_EVENT.id
    assert again.id.version == 5
    assert an_event().id != GOLDEN_EVENT.id


@given(
    st.uuids(),
    st.integers(0, LIMIT - 1).map(Money.of_cents),
    st.datetimes(datetime(1, 1, 2), datetime(9999, 1, 1)).map(  # noqa: DTZ001 — Hypothesis takes naive bounds
        lambda each: each.replace(microsecond=0, tzinfo=ONE_O_CLOCK.tzinfo)
    ),
    st.integers(0, 10**7),
)
def test_whatever_is_sealed_is_read_as_it_was(id_: UUID, price: Money, start: datetime, seconds: int) -> None:
    event = an_event(appointment_id=id_, price=price, start=start, end=start + timedelta(seconds=seconds))
    assert from_message(to_message(event)) == event


@pytest.mark.parametrize(
    "type_",
    [FINISHED, FINISHED + ".v2", FINISHED + ".v10", FINISHED + ".V1", FINISHED + ".", FINISHED_V1 + ".1"],
)
def test_an_unknown_version_cannot_be_read(type_: str) -> None:
    with pytest.raises(Unreadable, match="version"):
        from_message(replace(GOLDEN, type=type_))


@pytest.mark.parametrize("type_", ["clinic.appointment.started.v1", "clinic.appointment.finishedly", "x"])
def test_other_events_are_none_of_this_contexts_business(type_: str) -> None:
    assert from_message(replace(GOLDEN, type=type_, data=b"garbage")) is None


def test_a_message_without_a_value_holds_no_event() -> None:
    assert from_message(replace(GOLDEN, data=None)) is None


def test_a_finish_with_an_empty_value_is_not_passed_over() -> None:
    with pytest.raises(Unreadable, match="cannot be read"):
        from_message(replace(GOLDEN, data=b""))


def test_a_message_without_a_type_cannot_be_read() -> None:
    with pytest.raises(Unreadable, match="type"):
        from_message(replace(GOLDEN, type=""))


def test_fields_that_are_not_known_are_ignored() -> None:
    assert from_message(with_data(room="12", ward={"floor": [1, 2]})) == GOLDEN_EVENT


@pytest.mark.parametrize("field", ["appointment_id", "physician_id", "patient_id", "price", "start", "end"])
def test_an_event_that_lacks_a_field_cannot_be_read(field: str) -> None:
    with pytest.raises(Unreadable, match=field):
        from_message(with_data(**{field: None}))


@pytest.mark.parametrize(
    "change",
    [
        {"appointment_id": "84ab6121"},
        {"appointment_id": 7},
        {"price": "-1.00"},
        {"price": "200.001"},
        {"price": "NaN"},
        {"price": "Infinity"},
        {"price": "1e15"},
        {"price": []},
        {"start": "2020-12-01T13:00:00"},
        {"start": "2020-13-01T13:00:00Z"},
        {"start": 1606827600},
        {"start": "0001-01-01T00:00:00+23:59"},
        {"end": "9999-12-31T23:59:59-23:59"},
        {"end": "2020-12-01T12:59:59Z"},
    ],
    ids=str,
)
def test_an_event_with_a_field_that_cannot_be_is_unreadable(change: dict[str, object]) -> None:
    with pytest.raises(Unreadable):
        from_message(with_data(**change))


def test_a_price_may_be_a_number_and_times_may_be_of_any_zone_and_finer_than_seconds() -> None:
    local = ONE_O_CLOCK.astimezone(timezone(timedelta(hours=2))).replace(microsecond=999_999)
    assert from_message(with_data(price=200, start=local.isoformat())) == GOLDEN_EVENT


def with_token(field: str, token: str) -> Message:
    """The golden message with another JSON token for one field of its data."""
    before = json.dumps(json.loads(GOLDEN_DATA)[field]).encode()
    assert GOLDEN_DATA.count(before) == 1
    return replace(GOLDEN, data=GOLDEN_DATA.replace(before, token.encode()))


@pytest.mark.parametrize("field", ["start", "end"])
@pytest.mark.parametrize("zone", ["Z", "+00:00", "z"])
@pytest.mark.parametrize("dot", [".", r"\u002e"])
@pytest.mark.parametrize("fraction", ["9999995", "999999999", "9" * 100, r"\u0039" * 8])
def test_a_time_is_cut_to_its_second_however_fine(field: str, zone: str, dot: str, fraction: str) -> None:
    second = ONE_O_CLOCK if field == "start" else TWO_O_CLOCK
    token = f'"{second:%Y-%m-%dT%H:%M:%S}{dot}{fraction}{zone}"'
    assert from_message(with_token(field, token)) == GOLDEN_EVENT


def test_nothing_long_is_remembered_of_times_however_finely_they_are_written() -> None:
    tracemalloc.start()
    for number in range(100):
        from_message(with_token("end", f'"2020-12-01T14:00:00.{number:0100000}Z"'))
    remembered, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert remembered < 1_000_000


def test_the_last_moment_of_all_is_cut_too() -> None:
    read = from_message(with_token("end", '"9999-12-31T23:59:59.9999999Z"'))
    assert read is not None
    assert read.end == datetime(9999, 12, 31, 23, 59, 59, tzinfo=ONE_O_CLOCK.tzinfo)


@pytest.mark.parametrize("token", ["200", "200.0", "200.00", '"200"', '"200.0"', r'"20\u0030"'])
def test_a_price_is_read_as_an_accountant_would_type_it(token: str) -> None:
    assert from_message(with_token("price", token)) == GOLDEN_EVENT


@pytest.mark.parametrize(
    "token",
    [
        '"2_00.00"',
        '"\uff12\uff10\uff10"',
        '" 5"',
        '"5 "',
        '"5e1"',
        "5e1",
        "2E2",
        '"+5"',
        "200.000",
        "-0",
        "0.001",
    ],
)
def test_a_price_that_no_accountant_would_type_is_refused(token: str) -> None:
    with pytest.raises(Unreadable, match="write it like") as refusal:
        from_message(with_token("price", token))
    assert refusal.value.code == "amount-invalid:$.price"


@pytest.mark.parametrize("token", ["null", "true", "[]", "{}", '""', '"x"', '"200,00"'])
def test_a_price_that_is_no_number_is_refused_with_its_place(token: str) -> None:
    with pytest.raises(Unreadable) as refusal:
        from_message(with_token("price", token))
    assert refusal.value.code == "data-unreadable:$.price"


def test_a_price_that_is_not_utf_8_is_refused_with_its_place() -> None:
    with pytest.raises(Unreadable) as refusal:
        from_message(replace(GOLDEN, data=GOLDEN_DATA.replace(b"200.00", b"\xff")))
    assert refusal.value.code == "data-unreadable:$.price"


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\xff",
        b'{"appointment_id": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\x00" * 10,
    ],
    ids=repr,
)
def test_data_that_is_no_such_object_is_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        from_message(replace(GOLDEN, data=data))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
odd_data = st.dictionaries(st.sampled_from(["appointment_id", "price", "start", "end"]), json_values)


@given(
    st.sampled_from(["", FINISHED, FINISHED_V1, "other"]) | st.text(),
    st.none() | st.binary() | st.binary().map(lambda tail: GOLDEN_DATA + tail),
)
def test_garbage_is_unreadable_at_worst(type_: str, data: bytes | None) -> None:
    with suppress(Unreadable):
        assert from_message(a_message(type=type_, data=data)) in (None, GOLDEN_EVENT)


@given(odd_data)
def test_odd_fields_are_unreadable_at_worst(changes: dict[str, object]) -> None:
    with suppress(Unreadable):
        assert from_message(with_data(**changes))
