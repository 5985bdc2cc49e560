"""How long each appointment waited for its charge over a campaign, and what went wrong meanwhile, as a
picture.
"""

from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from campaign.broken_log import BROKEN
from campaign.failpoints import LOOP_ENDS, THREAD_ENDS, WATCHER_ENDS
from campaign.nemesis import Happened
from campaign.run import Outcome

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, MultipleLocator

INK = "#1f2933"
FAINT = "#cbd2d9"
CHARGED = "#2f6fab"
LINE = "#0b3c66"
LANES: Final = {
    "servers": "servers and cuts",
    "both": "both services",
    "appointment": "appointment service",
    "financial": "financial service",
    "messages": "messages, clocks, log",
}
COLOURS: Final = {
    "kill": "#c0392b",
    "restart": "#8e44ad",
    "pause": "#8e44ad",
    "freeze": "#2980b9",
    "error": "#e08e0b",
    "refuse": "#e08e0b",
    "cut": "#e08e0b",
    "delay": "#7f8c8d",
    "fill": "#16a085",
    "send": "#95a5a6",
    "clock": "#95a5a6",
    "replace": "#16a085",
    **dict.fromkeys((*LOOP_ENDS, *THREAD_ENDS), "#c0392b"),
    **dict.fromkeys((*BROKEN, WATCHER_ENDS), "#16a085"),
}
MAX_TICKS: Final = 15
LASTING: Final = (
    "kill",
    "freeze",
    "pause",
    "restart",
    "fill",
    *LOOP_ENDS,
    *THREAD_ENDS,
    *BROKEN,
    WATCHER_ENDS,
)
"""Shown from when to when."""
NAMES: Final = {
    "kill": "killed, loop or thread ended",
    "freeze": "frozen",
    "pause": "paused, restarted",
    "error": "error, cut, refused",
    "delay": "delayed",
    "fill": "disk full, log replaced or broken",
    "send": "foreign messages, clock",
}


def draw(outcome: Outcome, path: Path) -> Path:
    """Write it as PNG."""
    waits = sorted(outcome.found.evidence.waits(outcome.found.history.answered_at).values())
    with plt.rc_context(
        {
            "font.size": 9,
            "axes.edgecolor": FAINT,
            "text.color": INK,
            "axes.labelcolor": INK,
            "svg.fonttype": "none",
        }
    ):
        figure, (above, below) = plt.subplots(
            2, 1, figsize=(12, 6.6), dpi=150, sharex=True, height_ratios=(3.4, 1.25), layout="constrained"
        )
        if waits:
            _waits(above, [(at - outcome.began, wait) for at, wait in waits])
        _faults(below, outcome.journal, outcome.began, outcome.ended)
        _titles(above, outcome, len(waits))
        below.set_xlim(0, outcome.ended - outcome.began)
        figure.savefig(path)
        plt.close(figure)
    return path


def _waits(axes: Any, waits: Sequence[tuple[float, float]]) -> None:
    shown = [(at, max(wait, 0.001)) for at, wait in waits]
    axes.set_yscale("log")
    axes.scatter(*zip(*shown, strict=True), s=7, color=CHARGED, alpha=0.4, linewidths=0, rasterized=True)
    axes.plot(*zip(*_medians(shown), strict=True), color=LINE, linewidth=1.4, label="median")
    at, slowest = max(shown, key=lambda each: each[1])
    axes.scatter([at], [slowest], s=22, color=LINE, zorder=3)
    axes.annotate(
        f"slowest: {slowest:.1f} s",
        (at, slowest),
        xytext=(0, 9),
        textcoords="offset points",
        ha="center",
        color=INK,
        fontweight="bold",
    )
    axes.set_ylim(min(wait for _, wait in shown), slowest * 2.5)
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda seconds, _: f"{seconds * 1000:g} ms" if seconds < 1 else f"{seconds:g} s")
    )
    axes.set_ylabel("from finish to charge")
    axes.grid(axis="y", color=FAINT, linewidth=0.5, alpha=0.7)
    axes.legend(loc="lower right", frameon=False)
    _bare(axes)


def _medians(waits: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Of each of some eighty stretches of time; where nothing was finished, the line is broken."""
    width = max(0.5, waits[-1][0] / 80)
    chunks: list[list[float]] = [[] for _ in range(int(waits[-1][0] // width) + 1)]
    for at, wait in waits:
        chunks[max(0, int(at // width))].append(wait)
    return [
        ((number + 0.5) * width, sorted(found)[len(found) // 2] if found else nan)
        for number, found in enumerate(chunks)
    ]


def _faults(axes: Any, journal: Sequence[Happened], began: float, ended: float) -> None:
    rows = [lane for lane in LANES if any(_lane(each) == lane for each in journal)]
    for each in journal:
        row = rows.index(_lane(each))
        colour = COLOURS[each.fault.action]
        at = each.began - began
        if each.fault.action in LASTING:
            axes.barh(
                row,
                each.ended - each.began,
                left=at,
                height=0.5,
                align="center",
                color=colour,
                alpha=0.35,
                linewidth=0,
            )
        axes.plot([at], [row], "|", color=colour, markersize=9, markeredgewidth=0.9)
    happened = {COLOURS[each.fault.action] for each in journal}
    names = {action: name for action, name in NAMES.items() if COLOURS[action] in happened}
    for action, name in names.items():
        axes.plot([], [], "|", color=COLOURS[action], markersize=9, markeredgewidth=2, label=name)
    axes.set_yticks(range(len(rows)), [LANES[row] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MultipleLocator(_between_ticks(ended - began)))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda seconds, _: f"{int(seconds) // 60}:{int(seconds) % 60:02}")
    )
    axes.set_xlabel("minutes since the campaign began")
    if names:
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.32),
            ncols=max(1, len(names)),
            frameon=False,
            handletextpad=0.2,
        )
    _bare(axes)


def _between_ticks(seconds: float) -> float:
    return next(each for each in (5, 10, 15, 30, 60, 120, 300, 600, 1e9) if seconds / each <= MAX_TICKS)


def _lane(happened: Happened) -> str:
    fault = happened.fault
    if fault.lane == "servers" or fault.action == "cut":
        return "servers"
    if fault.where == "both services":
        return "both"
    return fault.lane if fault.lane in LANES else "messages"


def _titles(axes: Any, outcome: Outcome, charged: int) -> None:
    kept = "the promise was broken" if outcome.breaches else "nothing lost, nothing doubled"
    axes.set_title(
        f"Every finish and its charge: {charged:,} appointments, {len(outcome.journal)} faults, {kept}",
        loc="left",
        fontsize=13,
        fontweight="bold",
        pad=22,
    )
    stack = (
        "SQLite, one process of each service"
        if outcome.options.stack == "embedded"
        else "MongoDB and Kafka, two processes of each service"
    )
    axes.text(
        0,
        1.025,
        f"{stack}; seed {outcome.options.seed}. A point is an appointment, at the moment it was finished.",
        transform=axes.transAxes,
    )


def _bare(axes: Any) -> None:
    axes.tick_params(color=FAINT, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
