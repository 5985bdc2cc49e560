"""The measures of the small charts. The templates draw them: no markup is made here."""

from collections.abc import Mapping, Sequence
from math import ceil, log
from typing import Final

from msgspec import Struct

LEAST: Final = 0.001
"""Seconds: whatever takes less is drawn as this."""
STOPS: Final = {
    0.01: "10 ms",
    0.1: "100 ms",
    1.0: "1 s",
    10.0: "10 s",
    60.0: "1 min",
    600.0: "10 min",
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
        """The places worth a line, at most four, by name."""
        within = [each for each in STOPS if each < self.most]
        chosen = within if len(within) <= MAX_TICKS else within[::-2][::-1]
        return {STOPS[each]: self(each) for each in chosen}


def scale_of(durations: Sequence[float]) -> Scale:
    """The smallest scale that shows all of them."""
    longest = max(durations, default=0.0)
    return Scale(next((each for each in STOPS if longest <= each), max(STOPS)))


def percentile(values: Sequence[float], percent: int) -> float | None:
    """The least of them that so many per cent do not exceed; None of none."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)] if ordered else None


class Bar(Struct, frozen=True):
    """One duration in a chart; all in per cent of it. `is_open`: it is not over."""

    x: float
    share: float
    is_open: bool


class Chart(Struct, frozen=True):
    """Bars from the left to the right; `ticks` and `marks` are lines across them, by name."""

    bars: Sequence[Bar]
    width: float
    ticks: Mapping[str, float]
    marks: Mapping[str, float]


LEFT, RIGHT = 11.0, 92.0
"""Per cent: the bars lie between; the names of lines beside them."""
APART: Final = 10.0
"""Per cent between two lines, so that their names can be read."""


def chart(
    lengths: Sequence[tuple[float | None, bool]], median: float | None, slowest: float | None, places: int
) -> Chart:
    """A bar for each of the last lengths that is known, in so many places; True where it is not over."""
    scale = scale_of([seconds for seconds, _ in lengths if seconds is not None])
    step = (RIGHT - LEFT) / places
    return Chart(
        bars=[
            Bar(round(LEFT + (place + 0.15) * step, 2), max(scale(seconds), 1.0), is_open)
            for place, (seconds, is_open) in enumerate(lengths[-places:])
            if seconds is not None
        ],
        width=round(step * 0.7, 2),
        ticks=scale.ticks,
        marks=_marks(scale(median), scale(slowest)) if median is not None and slowest is not None else {},
    )


def _marks(median: float, slowest: float) -> Mapping[str, float]:
    """By name; what is too near for two names has one."""
    if slowest - median < APART:
        return {"p50, p99": slowest}
    return {"p50": median, "p99": slowest}
