"""Pricing policies: named values. Each says how many seconds of an appointment are billed."""

from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from typing import Final

from msgspec import Struct

from clinic.domain.money import Money

HOUR: Final = 3600


class Pricing(Struct, frozen=True):
    """A policy: `billed` turns the whole seconds that have elapsed into the seconds that are billed."""

    name: str
    billed: Callable[[int], int]

    def hours(self, elapsed: timedelta) -> Fraction:
        """The hours that are billed, exactly."""
        return Fraction(self.billed(int(elapsed.total_seconds())), HOUR)

    def total(self, price: Money, elapsed: timedelta) -> Money:
        """The price per hour times the billed hours, rounded once. Raises `Unreadable` if it is too large."""
        return price * self.hours(elapsed)


def hours_begun(seconds: int) -> int:
    """Every hour that has begun. At 1:00:00 the second one has."""
    return (seconds // HOUR + 1) * HOUR


def whole_hours(seconds: int) -> int:
    """The hours that are over, one at least."""
    return max(1, seconds // HOUR) * HOUR


def pro_rata(seconds: int) -> int:
    """The first hour in full, then by the second."""
    return max(HOUR, seconds)


POLICIES: Final = {
    policy.name: policy
    for policy in (
        Pricing("hours-begun", hours_begun),
        Pricing("whole-hours", whole_hours),
        Pricing("pro-rata", pro_rata),
    )
}
