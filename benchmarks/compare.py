"""`make bench-compare BASE=commit`: what a change cost, in one paired run in one environment."""

import argparse
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec.structs import replace

from benchmarks import machine, page, systems
from benchmarks.__main__ import console, show_measurement
from benchmarks.rounds import SCENARIOS, Plan, measure
from benchmarks.table import aligned, table


def main() -> None:
    """Measure base, now, base, now, and show the ratio of each pair."""
    asked = _parser().parse_args()
    clinic = systems.EMBEDDED if asked.stack == "embedded" else systems.CLINIC
    only = frozenset(asked.only.split(","))
    if unknown := only - SCENARIOS:
        raise SystemExit(f"{', '.join(sorted(unknown))}: choose of {', '.join(sorted(SCENARIOS))}")
    plan = Plan(rounds=asked.rounds, seconds=asked.seconds, rates=[200], swept=(), scenarios=only)
    console.print(f"load before: {machine.load()}")
    with _checked_out(asked.base) as base:
        pair = [replace(clinic, name="base", source=base / "src"), replace(clinic, name="now")]
        measurements, _ = measure(plan, pair, show_measurement)
    lines = table(measurements, page.rows(asked.stack, plan.rates), ["base", "now"], [("now", "base")])
    console.print(f"\n{aligned(lines)}", markup=False)


@contextmanager
def _checked_out(commit: str) -> Iterator[Path]:
    with TemporaryDirectory(prefix="clinic-base-") as folder:
        base = Path(folder) / "base"
        _git("worktree", "add", "--quiet", "--detach", str(base), commit)
        try:
            yield base
        finally:
            _git("worktree", "remove", "--force", str(base))


def _git(*arguments: str) -> None:
    command: Sequence[str] = ("git", *arguments)
    subprocess.run(command, check=True, cwd=systems.ROOT)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description="Measure a commit beside the tree."
    )
    parser.add_argument("--base", required=True, help="the commit to compare with")
    parser.add_argument("--stack", choices=("embedded", "real"), default="real")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=5, help="of each scenario")
    parser.add_argument("--only", default="start,finish,drain", help="scenarios, with commas")
    return parser


if __name__ == "__main__":
    main()
