"""Numbers from rounds: percentiles, medians with their spread, ratios of what was undisturbed."""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from statistics import median
from typing import Final

from msgspec import Struct

DISTURBED_ABOVE: Final = 0.15
"""Of one core: a round in which other processes took more than this says nothing about a ratio."""


class Figure(Struct, frozen=True):
    """The median of some rounds, the lowest and the highest of them."""

    median: float
    low: float
    high: float
    rounds: int


class Measurement(Struct, frozen=True, kw_only=True):
    """One scenario of one system in one round. `others`: cores that unrelated processes took meanwhile."""

    stack: str
    system: str
    scenario: str
    round: int
    values: Mapping[str, float]
    others: float
    note: str = ""

    @property
    def is_disturbed(self) -> bool:
        return self.others > DISTURBED_ABOVE


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is at least as large as this share of them (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * share) - 1)]


def figure(values: Iterable[float]) -> Figure | None:
    """None where there are no values."""
    found = list(values)
    return Figure(median(found), min(found), max(found), len(found)) if found else None


def of(measurements: Iterable[Measurement], system: str, scenario: str, key: str) -> dict[int, float]:
    """The values of undisturbed rounds, by round."""
    return {
        found.round: found.values[key]
        for found in measurements
        if (found.system, found.scenario) == (system, scenario)
        and key in found.values
        and not found.is_disturbed
    }


def ratio(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Figure | None:
    """Ours to theirs in the rounds that were undisturbed for both; None where there is no such round."""
    return figure(ours[number] / theirs[number] for number in ours.keys() & theirs.keys() if theirs[number])
