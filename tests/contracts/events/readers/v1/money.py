"""Exact money: whole cents inside, two decimals outside, one rounding rule."""

from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import total_ordering
from typing import Final

from contracts.events.readers.v1.errors import Unreadable

LIMIT: Final = 10**15
"""Cents. Below it an amount fits a 64-bit integer and, for readers that know no better, a double."""


@total_ordering
class Money:
    """An amount of the clinic's currency: 0.00 or more, in whole cents.

    Raises `Unreadable` for what is no such amount: not a number, infinite, negative, a fraction of a cent, too large.

    >>> Money("200") * Fraction(13, 12)
    Money('216.67')
    """

    __slots__ = ("cents",)
    cents: int

    def __init__(self, amount: str | Decimal) -> None:
        cents = _cents(amount)
        if cents is None:
            raise Unreadable(f"{str(amount)[:40]!r} is no amount of money: write it like 200.00, without fractions of a cent")
        self.cents = cents

    @classmethod
    def of_cents(cls, cents: int) -> "Money":
        """The amount of that many whole cents. Raises `Unreadable` as the constructor does."""
        return cls(Decimal(cents) / 100)

    def __mul__(self, factor: int | Fraction) -> "Money":
        """This amount so many times, rounded once, half-up, to cents."""
        product = self.cents * Fraction(factor)
        return Money.of_cents((2 * product.numerator + product.denominator) // (2 * product.denominator))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self.cents == other.cents

    def __lt__(self, other: "Money") -> bool:
        return self.cents < other.cents

    def __hash__(self) -> int:
        return hash(self.cents)

    def __str__(self) -> str:
        return f"{self.cents // 100}.{self.cents % 100:02}"

    def __repr__(self) -> str:
        return f"Money({str(self)!r})"


def _cents(amount: str | Decimal) -> int | None:
    try:
        cents = Decimal(amount) * 100
    except InvalidOperation:
        return None
    return int(cents) if cents.is_finite() and 0 <= cents < LIMIT and cents == cents.to_integral_value() else None
