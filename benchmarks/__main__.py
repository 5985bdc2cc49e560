"""`python -m benchmarks`: see `make bench`."""

import argparse
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace
from rich.console import Console

from benchmarks import machine, page, systems
from benchmarks.figures import Measurement
from benchmarks.rounds import Plan, measure
from benchmarks.table import aligned

STACKS: Final = {
    "embedded": [systems.EMBEDDED, systems.NOTHING],
    "real": [
        systems.CLINIC,
        systems.A,
        systems.B,
        systems.B_WAKE,
        replace(systems.NOTHING, stack="real"),
        systems.BARE,
    ],
}

console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Measure, show, and keep what came of it."""
    parser = _parser()
    asked = parser.parse_args()
    if asked.page:
        run = msgspec.json.decode(asked.page.read_bytes(), type=page.Run)
        console.print(f"page: {page.write(run, asked.folder)}")
        return
    asked.folder.mkdir(parents=True, exist_ok=True)
    stacks = list(STACKS) if asked.stack == "both" else [asked.stack]
    selected = [system for stack in stacks for system in STACKS[stack]]
    plan = Plan(rounds=asked.rounds, seconds=asked.seconds)
    if asked.short:
        plan = replace(plan, swept=())
    console.print(f"load before: {machine.load()}")
    run = _measured(plan, selected)
    kept = asked.folder / "run.json"
    kept.write_bytes(msgspec.json.format(msgspec.json.encode(run)))
    for stack, lines in page.tables(run).items():
        console.print(f"\n{page.TITLES[stack]}\n\n{aligned(lines)}", markup=False)
    console.print(f"\nfigures: {kept}\npage: {page.write(run, asked.folder)}")


def _measured(plan: Plan, selected: Sequence[systems.System]) -> page.Run:
    measurements, versions = measure(plan, selected, show_measurement)
    return page.Run(
        at=datetime.now(UTC).strftime("%d %B %Y"),
        commit=_commit(),
        machine=machine.machine()
        | ({"servers": ", ".join(map(" ".join, versions.items()))} if versions else {}),
        rounds=plan.rounds,
        seconds=plan.seconds,
        rates=plan.rates,
        measurements=measurements,
    )


def show_measurement(found: Measurement) -> None:
    """One line a measurement, as it comes."""
    values = "  ".join(f"{name} {value:,.1f}" for name, value in found.values.items())
    mark = f"  disturbed: others took {found.others:.2f} of a core" if found.is_disturbed else ""
    console.print(
        f"{found.round} {found.stack:<8} {found.system:<12} {found.scenario:<14} {found.note}{values}{mark}"
    )


def _commit() -> str:
    asked = subprocess.run(
        ("git", "rev-parse", "--short=10", "HEAD"),  # noqa: S607 — wherever it is
        capture_output=True,
        text=True,
        check=False,
        cwd=systems.ROOT,
    )
    return asked.stdout.strip() or "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure clinic beside its peers."
    )
    parser.add_argument("--stack", choices=("embedded", "real", "both"), default="both")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8, help="of each scenario")
    parser.add_argument("--folder", type=Path, default=systems.ROOT / "var" / "bench")
    parser.add_argument("--short", action="store_true", help="without the rates up to saturation")
    parser.add_argument(
        "--page", type=Path, help="write the page of this run into the folder; measure nothing"
    )
    return parser


if __name__ == "__main__":
    main()
