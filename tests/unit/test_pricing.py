"""What an appointment costs under each policy."""

from datetime import timedelta
from fractions import Fraction
from math import floor
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ledger import BILLED

from clinic.domain.errors import Unreadable
from clinic.domain.financial.pricing import POLICIES, Pricing
from clinic.domain.money import Money
from clinic.entrypoints.settings import Settings

policies = st.sampled_from(list(POLICIES.values()))
prices = st.integers(0, 10**8).map(Money.of_cents)
durations = st.integers(0, 10**7).map(lambda seconds: timedelta(seconds=seconds))


def test_the_policies_that_can_be_set_are_those_that_there_are() -> None:
    named = get_args(get_type_hints(Settings)["pricing"])
    assert set(named) == POLICIES.keys() == BILLED.keys()


@pytest.mark.parametrize(
    ("policy", "elapsed", "total"),
    [
        ("hours-begun", "0:00:00", "200.00"),
        ("hours-begun", "0:59:59", "200.00"),
        ("hours-begun", "1:00:00", "400.00"),
        ("hours-begun", "1:59:59", "400.00"),
        ("hours-begun", "24:00:00", "5000.00"),
        ("whole-hours", "0:00:00", "200.00"),
        ("whole-hours", "1:00:00", "200.00"),
        ("whole-hours", "1:59:59", "200.00"),
        ("whole-hours", "3:00:41", "600.00"),
        ("pro-rata", "0:00:00", "200.00"),
        ("pro-rata", "0:59:59", "200.00"),
        ("pro-rata", "1:00:00", "200.00"),
        ("pro-rata", "1:00:01", "200.06"),
        ("pro-rata", "1:05:00", "216.67"),
    ],
)
def test_the_documented_examples_at_200_an_hour(policy: str, elapsed: str, total: str) -> None:
    hours, minutes, seconds = map(int, elapsed.split(":"))
    assert POLICIES[policy].total(
        Money("200.00"), timedelta(hours=hours, minutes=minutes, seconds=seconds)
    ) == Money(total)


def test_policies_are_known_by_their_names() -> None:
    assert list(POLICIES) == ["hours-begun", "whole-hours", "pro-rata"]
    assert all(policy.name == name for name, policy in POLICIES.items())


@given(policies, prices, durations)
def test_it_is_never_below_one_hour(policy: Pricing, price: Money, elapsed: timedelta) -> None:
    assert policy.hours(elapsed) >= 1
    assert policy.total(price, elapsed) >= price


@given(policies, prices, durations, durations)
def test_it_never_falls_as_time_grows(
    policy: Pricing, price: Money, elapsed: timedelta, more: timedelta
) -> None:
    assert policy.total(price, elapsed) <= policy.total(price, elapsed + more)


@given(policies, prices, durations)
def test_it_is_the_exact_product_rounded_half_up_to_cents_once(
    policy: Pricing, price: Money, elapsed: timedelta
) -> None:
    seconds = elapsed // timedelta(seconds=1)
    hours = {
        "hours-begun": Fraction(seconds // 3600 + 1),
        "whole-hours": Fraction(max(1, seconds // 3600)),
        "pro-rata": max(Fraction(1), Fraction(seconds, 3600)),
    }[policy.name]
    assert policy.hours(elapsed) == hours
    assert policy.total(price, elapsed).cents == floor(price.cents * hours + Fraction(1, 2))


@given(prices, durations)
def test_no_policy_is_dearer_than_hours_begun_or_cheaper_than_whole_hours(
    price: Money, elapsed: timedelta
) -> None:
    whole, rata, begun = (
        POLICIES[name].total(price, elapsed) for name in ("whole-hours", "pro-rata", "hours-begun")
    )
    assert whole <= rata <= begun


def test_a_total_beyond_all_money_cannot_be_read() -> None:
    with pytest.raises(Unreadable):
        POLICIES["hours-begun"].total(Money("9999999999999.99"), timedelta(hours=1))
