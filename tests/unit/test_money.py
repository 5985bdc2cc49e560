"""Money is exact."""

from contextlib import suppress
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic.domain.errors import Unreadable
from clinic.domain.money import LIMIT, Money

amounts = st.integers(0, LIMIT - 1).map(Money.of_cents)


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("200", "200.00"),
        ("200.5", "200.50"),
        ("0.01", "0.01"),
        ("0", "0.00"),
        ("9999999999999.99",) * 2,
    ],
)
def test_an_amount_is_printed_with_two_decimals(written: str, printed: str) -> None:
    assert str(Money(written)) == printed
    assert repr(Money(written)) == f"Money('{printed}')"


@pytest.mark.parametrize(
    "written",
    [
        "",
        "x",
        "-0.01",
        "-1",
        "0.001",
        "1e-3",
        "NaN",
        "sNaN",
        "Infinity",
        "-Infinity",
        "10000000000000.00",
        "1e20",
        "1,00",
        "1.000",
        "2e2",
        "5e1",
        "2_00.00",
        "\uff12\uff10\uff10",
        " 5",
        "5 ",
        "5\n",
        "+5",
        ".5",
        "5.",
        "1" * 5000,
    ],
)
def test_what_is_no_amount_cannot_be_read(written: str) -> None:
    with pytest.raises(Unreadable, match="is not a valid amount"):
        Money(written)


@given(st.text() | st.decimals(allow_infinity=True, allow_nan=True))
def test_whatever_is_written_is_an_amount_or_unreadable(written: str | Decimal) -> None:
    with suppress(Unreadable):
        assert 0 <= Money(written).cents < LIMIT


@given(amounts)
def test_what_is_printed_reads_back_as_the_same(amount: Money) -> None:
    assert Money(str(amount)) == amount == Money.of_cents(amount.cents)


@given(amounts, amounts)
def test_amounts_compare_and_hash_by_their_cents(one: Money, other: Money) -> None:
    assert (one < other, one == other) == (one.cents < other.cents, one.cents == other.cents)
    assert len({one, other, Money(str(one))}) == (1 if one == other else 2)


def test_an_amount_is_nothing_but_an_amount() -> None:
    assert Money("1.00") != 1
    assert Money("1.00") != Decimal(1)


@pytest.mark.parametrize(
    ("price", "factor", "total"),
    [
        ("0.01", Fraction(1, 2), "0.01"),
        ("0.01", Fraction(49, 100), "0.00"),
        ("0.03", Fraction(1, 2), "0.02"),
        ("0.05", Fraction(1, 10), "0.01"),
    ],
)
def test_half_a_cent_is_rounded_up(price: str, factor: Fraction, total: str) -> None:
    assert Money(price) * factor == Money(total)


@given(st.integers(0, 10**9), st.fractions(0, 1000))
def test_a_product_is_the_nearest_cent(cents: int, factor: Fraction) -> None:
    exact = cents * factor
    error = (Money.of_cents(cents) * factor).cents - exact
    assert Fraction(-1, 2) < error <= Fraction(1, 2)


def test_a_product_beyond_all_money_cannot_be_read() -> None:
    with pytest.raises(Unreadable):
        Money("9999999999999.99") * 2
    with pytest.raises(Unreadable):
        Money("1.00") * -1
