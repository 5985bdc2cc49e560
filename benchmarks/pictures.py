"""What a person looks at: rate against latency, and time to charge at rising load up to saturation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from benchmarks.figures import Measurement

mpl.use("Agg")

from matplotlib import pyplot as plt

INK, FAINT = "#1f2933", "#cbd2d9"
COLOURS: Final = {"clinic": "#0b3c66", "A": "#c0392b", "B": "#e08e0b", "B+wake": "#16a085"}
SWEEP: Final = "sweep "


def draw(measurements: Sequence[Measurement], folder: Path) -> list[Path]:
    """A picture a stack, as SVG: left the answer, right the charge, over the rate of finishes."""
    stacks = sorted({found.stack for found in measurements if found.scenario.startswith(SWEEP)})
    return [
        _stack(stack, [found for found in measurements if found.stack == stack], folder) for stack in stacks
    ]


def _stack(stack: str, measurements: Sequence[Measurement], folder: Path) -> Path:
    style: Any = {
        "font.size": 9,
        "axes.edgecolor": FAINT,
        "text.color": INK,
        "svg.fonttype": "none",
        "svg.hashsalt": "1",
    }
    with plt.rc_context(style):
        figure, (answer, charge) = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
        for axes, key, title in (
            (answer, "answer", "from due to its answer"),
            (charge, "charge", "from due to its charge"),
        ):
            for system in dict.fromkeys(found.system for found in measurements):
                _line(axes, [found for found in measurements if found.system == system], system, key)
            axes.set_title(f"{stack}: {title}", loc="left")
            axes.set_xlabel("finishes a second")
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.grid(color=FAINT, linewidth=0.5, alpha=0.7)
            axes.spines[["top", "right"]].set_visible(False)
        answer.set_ylabel("ms (line p50, dots p99)")
        answer.legend(frameon=False)
        rates = sorted({_rate(found) for found in measurements if found.scenario.startswith(SWEEP)})
        for axes in (answer, charge):
            axes.set_xticks(rates, [str(rate) for rate in rates], rotation=45)
            axes.minorticks_off()
        path = folder / f"performance-{stack}.svg"
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return path


def _line(axes: Any, measurements: Sequence[Measurement], system: str, key: str) -> None:
    swept = sorted((found for found in measurements if found.scenario.startswith(SWEEP)), key=_rate)
    kept = [found for found in swept if not found.note]
    if not kept:
        return
    colour, rates = COLOURS.get(system, INK), [_rate(found) for found in kept]
    is_disturbed = any(found.is_disturbed for found in swept)
    style: Any = {"color": colour, "alpha": 0.35 if is_disturbed else 1.0}
    label = f"{system} (disturbed)" if is_disturbed else system
    axes.plot(rates, [found.values[f"{key}.p50"] for found in kept], label=label, **style)
    axes.plot(rates, [found.values[f"{key}.p99"] for found in kept], ".", **style)
    if swept[-1].note:  # where it could not follow
        axes.axvline(_rate(swept[-1]), linewidth=0.8, linestyle=":", **style)


def _rate(found: Measurement) -> int:
    return int(found.scenario.removeprefix(SWEEP).removesuffix("/s"))
