"""Exact money: whole cents inside, two decimals outside, one rounding rule."""

import re
from decimal import Decimal
from fractions import Fraction
from functools import total_ordering
from typing import Final

from clinic.domain.errors import Unreadable

LIMIT: Final = 10**15
"""Cents. Below it an amount fits a 64-bit integer and, for readers that know no better, a double."""


@total_ordering
class Money:
    """An amount of the clinic's currency: 0.00 or more, in whole cents.

    Raises `Unreadable` for anything else: not a number, infinite, negative, a fraction of a cent, too large.

    >>> Money("200") * Fraction(13, 12)
    Money('216.67')
    """

    __slots__ = ("cents",)
    cents: int

    def __init__(self, amount: str | Decimal) -> None:
        cents = _cents(amount)
        if cents is None:
            written = str(amount)[:40]
            raise Unreadable(
                f"{written!r} is not a valid amount: write it like 200.00, without fractions of a cent",
                code="amount-invalid",
            )
        self.cents = cents

    @classmethod
    def of_cents(cls, cents: int) -> "Money":
        """The amount of that many whole cents. Raises `Unreadable` as the constructor does."""
        if type(cents) is not int or not 0 <= cents < LIMIT:
            return cls(Decimal(cents) / 100)  # which says what is wrong with it
        amount = cls.__new__(cls)
        amount.cents = cents
        return amount

    def __mul__(self, factor: int | Fraction) -> "Money":
        """This amount times the factor, rounded once, half-up, to cents."""
        numerator, denominator = self.cents * factor.numerator, factor.denominator
        return Money.of_cents((2 * numerator + denominator) // (2 * denominator))

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


WRITTEN: Final = re.compile(r"[0-9]{1,13}(\.[0-9]{1,2})?")
"""What an accountant types: digits and at most two decimals.

`Decimal` takes much more: 2_00, full-width digits, spaces, 5e1.
"""


def _cents(amount: str | Decimal) -> int | None:
    if isinstance(amount, str):
        whole, _, part = amount.partition(".")
        return int(whole + part.ljust(2, "0")) if WRITTEN.fullmatch(amount) else None
    try:
        read = Decimal(amount)
        if not 0 <= read < LIMIT // 100 or read != (cents := read.quantize(Decimal("0.01"))):
            return None
    except ArithmeticError:  # not a number: such a thing has no order
        return None
    return int(cents.scaleb(2))
