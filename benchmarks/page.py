"""`docs/performance.md`: the last run, with its machine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from benchmarks.figures import DISTURBED_ABOVE, Measurement
from benchmarks.pictures import draw
from benchmarks.table import DISTURBED, Row, by_stack, embedded_rows, markdown, real_rows, table

TEMPLATE: Final = Path(__file__).with_name("performance.md")
TITLES: Final = {"real": "On MongoDB and Kafka", "embedded": "Embedded: SQLite"}
COMPARED: Final = {
    "real": [("clinic", "B"), ("clinic", "B+wake")],
    "embedded": [("clinic", "no-op")],
}


class Run(Struct, frozen=True, kw_only=True):
    """A whole run, as it is kept."""

    at: str
    commit: str
    machine: Mapping[str, str]
    rounds: int
    seconds: int
    rates: Sequence[int]
    measurements: Sequence[Measurement]


def rows(stack: str, rates: Sequence[int]) -> list[Row]:
    """What is shown of a stack."""
    return real_rows(rates) if stack == "real" else embedded_rows(rates)


def tables(run: Run) -> dict[str, list[list[str]]]:
    """One a stack."""
    return {
        stack: table(
            found,
            rows(stack, run.rates),
            list(dict.fromkeys(measurement.system for measurement in found)),
            COMPARED[stack],
        )
        for stack, found in by_stack(run.measurements).items()
    }


def write(run: Run, folder: Path) -> Path:
    """The page and its pictures."""
    pictures = {picture.stem.rpartition("-")[2]: picture.name for picture in draw(run.measurements, folder)}
    parts = [f"## {TITLES[stack]}\n\n{markdown(lines)}" for stack, lines in tables(run).items()]
    for index, stack in enumerate(tables(run)):
        if stack in pictures:
            parts[index] += f"\n![Latency over the rate of finishes]({pictures[stack]})\n"
    text = TEMPLATE.read_text().format(
        run=run,
        facts="\n".join(f"- {name}: {text}" for name, text in run.machine.items()),
        tables="\n".join(parts),
        disturbed=sum(found.is_disturbed for found in run.measurements),
        count=len(run.measurements),
        mark=DISTURBED,
        above=f"{DISTURBED_ABOVE:.0%}",
    )
    path = folder / "performance.md"
    path.write_text(text)
    return path
