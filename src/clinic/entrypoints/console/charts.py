"""The measures of the small charts. The templates draw them: no markup is made here."""

from collections.abc import Mapping, Sequence
from math import ceil, log
from typing import Final

from msgspec import Struct

LEAST: Final = 0.001
"""Seconds: whatever takes less is drawn as this."""
STOPS: Final = {0.01: "10 ms", 0.1: "100 ms", 1.0: "1 s", 10.0: "10 s", 60.0: "1 min", 600.0: "10 min"} | {
    3600.0: "1 h",
    86_400.0: "1 d",
}
"""Seconds at which a scale may end, or have a line; the same in all languages (SI)."""
MAX_TICKS: Final = 4


class Scale(Struct, frozen=True):
    """Durations as a share of the chart, logarithmic: 40 ms can be read beside two hours."""

    most: float = max(STOPS)

    def __call__(self, seconds: float) -> float:
        """Per cent: 0 for a millisecond or less, 100 for `most` seconds or more."""
        share = log(max(seconds, LEAST) / LEAST) / log(self.most / LEAST)
        return round(100 * min(share, 1.0), 2)

    @property
    def ticks(self) -> Mapping[str, float]:
        """The places worth a line, by name."""
        within = [each for each in STOPS if each < self.most]
        return {STOPS[each]: self(each) for each in within[:: -2 if len(within) > MAX_TICKS else 1]}


def scale_of(durations: Sequence[float]) -> Scale:
    """The smallest scale that shows all of them."""
    longest = max(durations, default=0.0)
    return Scale(next((each for each in STOPS if longest <= each), max(STOPS)))


def percentile(values: Sequence[float], percent: int) -> float | None:
    """The least of them that so many per cent do not exceed; None of none."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)] if ordered else None
