"""`make panels`: the dashboard as pictures, a row each, from what a real Prometheus answers.

Grafana is not needed, and draws the same lines: under a fault that was recorded (shaded), the broker away.
"""

import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, Formatter, FuncFormatter, PercentFormatter

from alerts.prometheus import Prometheus, both, dashboard, prometheus
from alerts.recording import ROOT, Recording

FOLDER: Final = ROOT / "var" / "panels"
ACROSS: Final = 24
"""Units of Grafana's grid from the left to the right."""
UNIT: Final = 0.75
"""Inches of one."""
THOUSAND: Final = 1000
LEGEND: Final[Mapping[str, Any]] = {"fontsize": "x-small", "frameon": False}
FORMATS: Final[Mapping[str, Formatter]] = {
    "s": EngFormatter(unit="s"),
    "percentunit": PercentFormatter(xmax=1),
    "bytes": EngFormatter(unit="B"),
    "ops": FuncFormatter(lambda value, _: f"{_number(value)}/s"),
    "reqps": FuncFormatter(lambda value, _: f"{_number(value)}/s"),
    "short": FuncFormatter(lambda value, _: _number(value)),
}


def main() -> None:
    """Draw all of them, and say where they are."""
    mpl.use("Agg")
    recording = both()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file in FOLDER.glob("*.png"):
        file.unlink()
    with tempfile.TemporaryDirectory() as folder, prometheus(recording, Path(folder)) as its:
        for number, (title, panels) in enumerate(_rows(dashboard()), 1):
            file = FOLDER / f"{number}-{re.sub('[^a-z]+', '-', title.lower()).strip('-')}.png"
            _draw(title, panels, its, recording).savefig(file, dpi=80)
            sys.stdout.write(f"{file.relative_to(ROOT)}\n")


def _rows(panels: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The panels beneath the title of each row."""
    parts = [list(part) for _, part in groupby(panels, lambda panel: panel["type"] == "row")]
    return [(title[-1]["title"], beneath) for title, beneath in zip(parts[::2], parts[1::2], strict=True)]


def _draw(title: str, panels: Sequence[dict[str, Any]], its: Prometheus, recording: Recording) -> Figure:
    top = min(panel["gridPos"]["y"] for panel in panels)
    high = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) - top
    figure = Figure(figsize=(ACROSS * UNIT, high * UNIT * 0.75), layout="constrained")
    figure.suptitle(title, fontweight="bold")
    grid = figure.add_gridspec(high, ACROSS)
    for panel in panels:
        at = panel["gridPos"]
        first, left = at["y"] - top, at["x"]
        axes = figure.add_subplot(grid[first : first + at["h"], left : left + at["w"]])
        _draw_panel(axes, panel, its)
        axes.axvspan(recording.began, recording.ended, color="tab:red", alpha=0.08, linewidth=0)
        axes.set_xlim(0, recording.seconds)
    return figure


def _draw_panel(axes: Axes, panel: dict[str, Any], its: Prometheus) -> None:
    """Its lines; dashed and at the right those that Grafana is told to measure there."""
    config = panel["fieldConfig"]
    at_right = {
        each["matcher"]["options"]: (axes.twinx(), _unit(each)) for each in config.get("overrides", ())
    }
    lines = []
    for target in panel["targets"]:
        its_axes, style = (at_right[target["refId"]][0], "--") if target["refId"] in at_right else (axes, "-")
        for line in its.lines(target["expr"], target["legendFormat"]):
            lines += its_axes.plot(*zip(*line.values, strict=True), style, label=line.legend, linewidth=1.3)
    for each, unit in [(axes, config["defaults"]["unit"]), *at_right.values()]:
        each.yaxis.set_major_formatter(FORMATS[unit])
        each.tick_params(labelsize="small")
        highest = each.dataLim.y1 if each.dataLim.y1 > 0 else 1
        each.set_ylim(-0.03 * highest, 1.08 * highest)  # a line at 0 is seen, and one at its highest
    axes.set_title(panel["title"], fontsize="medium", loc="left")
    axes.grid(alpha=0.3)
    axes.legend(handles=lines, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=4, **LEGEND)


def _unit(override: dict[str, Any]) -> str:
    return next(str(each["value"]) for each in override["properties"] if each["id"] == "unit")


def _number(value: float) -> str:
    """As Grafana writes short numbers: 0.2, 40, 1.5 k."""
    return EngFormatter()(value) if abs(value) >= THOUSAND else f"{value:.3g}"


if __name__ == "__main__":
    main()
