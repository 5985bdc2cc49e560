"""How values look over HTTP: money, dates, cursors, and the Prefer header."""

import time
import timeit
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clinic.domain.errors import Unreadable
from clinic.domain.financial.model import ChargeCursor
from clinic.domain.money import Money
from clinic.entrypoints import formats
from clinic.entrypoints.web import parameters
from clinic.entrypoints.web.problems import Invalid

MOMENTS = st.datetimes(timezones=st.just(UTC))
SOME_ID = UUID("84ab6121-c4a8-4684-8cc2-b03024ec0f1d")


@given(st.integers(0, 10**15 - 1))
def test_money_is_a_json_number_that_reads_back_exactly(cents: int) -> None:
    printed = bytes(formats.money(Money.of_cents(cents)))
    assert printed.decode().partition(".")[2].__len__() == 2
    assert msgspec.json.decode(printed, type=Decimal) == Decimal(cents) / 100


@given(MOMENTS)
def test_a_date_is_printed_to_the_second_and_reads_back(moment: datetime) -> None:
    printed = formats.date(moment)
    assert len(printed) == len("2020-12-01 13:00:00")
    assert datetime.fromisoformat(printed).replace(tzinfo=UTC) == moment.replace(microsecond=0)


@given(MOMENTS, st.integers(-14 * 60, 14 * 60))
def test_a_moment_that_a_client_gives_is_the_same_moment_in_utc(moment: datetime, minutes: int) -> None:
    try:
        given_by_client = moment.astimezone(timezone(timedelta(minutes=minutes)))
    except OverflowError:
        assume(False)
    read = parameters.utc("charged_from", given_by_client.isoformat())
    assert read == moment
    assert read is not None
    assert read.tzinfo is UTC


def test_a_moment_without_a_zone_is_utc_and_none_stays_none() -> None:
    assert parameters.utc("charged_from", "2020-12-01 13:00:00") == datetime(2020, 12, 1, 13, tzinfo=UTC)
    assert parameters.utc("charged_from", None) is None


def test_a_moment_that_a_client_gives_is_cut_to_microseconds_not_rounded() -> None:
    read = parameters.utc("charged_to", "2020-12-01T12:59:59.9999999Z")
    assert read == datetime(2020, 12, 1, 12, 59, 59, 999_999, tzinfo=UTC)


@pytest.mark.parametrize(
    "moment",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
    ],
)
def test_a_moment_beyond_all_dates_names_its_field(moment: datetime) -> None:
    with pytest.raises(Invalid) as raised:
        parameters.utc("charged_to", moment.isoformat())
    assert [each.field for each in raised.value.errors] == ["charged_to"]


@given(st.uuids())
def test_a_cursor_of_an_id_leads_back_to_it(its_id: UUID) -> None:
    cursor = parameters.cursor(its_id)
    assert parameters.place(cursor, UUID) == its_id
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(MOMENTS, st.uuids())
def test_a_cursor_of_a_place_leads_back_to_it_exactly(moment: datetime, its_id: UUID) -> None:
    place = ChargeCursor(moment, its_id)
    found = parameters.place(parameters.cursor(place), ChargeCursor)
    assert found == place
    assert isinstance(found, ChargeCursor)
    assert found.charged_at.tzinfo is not None


def test_no_cursor_is_no_place() -> None:
    assert parameters.place(None, UUID) is None


def refused(text: str, shape: type[Any]) -> None:
    with pytest.raises(Invalid) as raised:
        parameters.place(text, shape)
    assert [each.field for each in raised.value.errors] == ["after"]


@pytest.mark.parametrize("shape", [UUID, ChargeCursor])
@pytest.mark.parametrize(
    "text",
    ["", " ", "=", "====", "a", "garbage", "é", "\x00", "😀", "x" * 5000, "../..", "null", "oA==", "kA"],
    ids=repr,
)
def test_what_is_no_cursor_is_refused_naming_after(shape: type[Any], text: str) -> None:
    refused(text, shape)


@pytest.mark.parametrize(
    "value",
    [None, 7, "x", [], [None, None], [str(SOME_ID)], {"a": 1}, ["2020-01-01T00:00:00Z", "x"], [1, 2, 3]],
    ids=repr,
)
@pytest.mark.parametrize("shape", [UUID, ChargeCursor])
def test_a_cursor_that_holds_something_else_is_refused(shape: type[Any], value: Any) -> None:
    refused(urlsafe_b64encode(msgspec.msgpack.encode(value)).decode(), shape)


@given(st.text())
def test_whatever_is_given_as_a_cursor_is_a_place_or_refused(text: str) -> None:
    for shape in (UUID, ChargeCursor):
        try:
            assert isinstance(parameters.place(text, shape), shape)
        except Unreadable as raised:
            assert isinstance(raised, Invalid)  # noqa: PT017 — both outcomes are right


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ([], None),
        ([""], None),
        (["wait=5"], 5),
        (["WAIT=5"], 5),
        (['wait="5"'], 5),
        (["  wait =  5  "], 5),
        (["wait=5;x"], 5),
        (["wait=5 ; x=y"], 5),
        (["a, b=c, wait=5"], 5),
        (["a", "wait=5"], 5),
        (["wait=5", "wait=6"], 5),
        (["wait=x, wait=6"], None),
        (["wait=0"], 0),
        (["wait=30"], 30),
        (["wait=31"], 30),
        (["wait=999999999999999999"], 30),
        (["wait"], None),
        (["wait="], None),
        (["wait=-1"], None),
        (["wait=+1"], None),
        (["wait=1.0"], None),
        (["wait=1_0"], None),
        (["wait=\u0665"], None),
        (["wait=\u00b2"], None),
        (["awaits=5"], None),
    ],
    ids=repr,
)
def test_the_seconds_that_a_client_would_wait(prefer: list[str], seconds: int | None) -> None:
    assert parameters.parse_wait(prefer) == seconds


@given(st.lists(st.text()))
def test_whatever_the_prefer_header_says_it_is_read_or_ignored(prefer: list[str]) -> None:
    assert parameters.parse_wait(prefer) in (None, *range(parameters.MAX_WAIT + 1))


@given(st.integers(0, 10**12))
def test_a_long_wait_is_cut_and_a_short_one_is_kept(seconds: int) -> None:
    assert parameters.parse_wait([f"wait={seconds}"]) == min(seconds, 30)


@pytest.mark.parametrize(
    "piece", ['\\"', '"', 'a="', '"a"', '"\\', "\\", ",", "a,", '","', "wait=x,", ";", "=", "wait", '"\\"']
)
@pytest.mark.parametrize("opened", ["", '"'])
def test_reading_the_prefer_header_takes_time_in_proportion_to_it(opened: str, piece: str) -> None:
    def seconds(length: int) -> float:
        header = opened + piece * (length // len(piece))
        reading = timeit.Timer(lambda: parameters.parse_wait([header]), timer=time.thread_time)
        return min(reading.repeat(repeat=10, number=1))

    assert seconds(16_000) < 4 * 8 * seconds(2_000)  # a quadratic reader takes 64 times as long


def test_an_open_quote_hides_what_is_behind_it() -> None:
    assert parameters.parse_wait(['foo="a, wait=3']) is None
    assert parameters.parse_wait(['wait=5, foo="a\\']) == 5
    assert parameters.parse_wait(['foo="a\\", wait=3", wait=4']) == 4
