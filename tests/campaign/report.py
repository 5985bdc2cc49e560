"""What a person sees: how a campaign goes on, what happened, and the ledger. The same as a file, so that a
run repeats.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table
from support.ledger import sums

from campaign.clients import BEHAVIOURS
from campaign.failpoints import FAILPOINTS
from campaign.plan import DEFAULTS, NO_FAULT, Kind, Options
from campaign.run import Outcome, Progress

SHOWN = 3
"""Witnesses of a breach that are printed; the file has all."""
LINE_INTERVAL = 10.0
ACTIONS = ("kill", "error", "freeze", "delay", "refuse", "fill")


@contextmanager
def watching(console: Console) -> Iterator[Callable[[Progress], None]]:
    """A display that changes in a terminal; elsewhere a line now and then."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, refresh_per_second=5) as live:
        yield lambda progress: live.update(_line(progress))


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_INTERVAL
            self._console.print(_line(progress), highlight=False)


def _line(progress: Progress) -> str:
    last = progress.journal[-1].fault.name if progress.journal else "none yet"
    minutes, seconds = divmod(round(time.time() - progress.began), 60)
    return (
        f"{minutes:3}:{seconds:02}  {progress.stage}: {len(progress.history.started)} started, "
        f"{len(progress.history.finished)} finished, {progress.history.share:.0%} acknowledged; "
        f"{len(progress.journal)} faults, {progress.happened} of {progress.wanted} kinds, last: {last}"
    )


def show(console: Console, outcome: Outcome) -> None:
    """Both tables, and what the checker found, in one line."""
    console.print(_faults(outcome), _ledger(outcome))
    for breach, witnesses in outcome.breaches.items():
        more = f" and {len(witnesses) - SHOWN} more" if len(witnesses) > SHOWN else ""
        console.print(
            f"[red]{breach}[/red]: {', '.join(str(each) for each in witnesses[:SHOWN])}{more}",
            highlight=False,
        )
    for reason in outcome.shortcomings:
        console.print(f"[yellow]does not count[/yellow]: {reason}", highlight=False)
    console.print(check(outcome), highlight=False)


def check(outcome: Outcome) -> str:
    """One line, with all that repeats the run."""
    kept = (
        "the promise was BROKEN"
        if outcome.breaches
        else "the run does not count"
        if outcome.shortcomings
        else "the promise was kept"
    )
    return f"seed {outcome.options.seed}, {outcome.options.stack}: {kept}"


def _faults(outcome: Outcome) -> Table:
    hits = Counter((each.fault.action, each.fault.where) for each in outcome.journal)
    table = Table(title="Hits of each failpoint", title_justify="left")
    table.add_column("point")
    for action in ACTIONS:
        table.add_column(action, justify="right")
    for failpoints in FAILPOINTS.values():
        for point in failpoints:
            table.add_row(point, *(_count(hits, (action, point)) for action in ACTIONS))
        table.add_section()
    elsewhere = Counter(
        {
            kind: times
            for kind, times in hits.items()
            if kind[0] not in ACTIONS or kind[1] not in {p for each in FAILPOINTS.values() for p in each}
        }
    )
    for (action, where), times in sorted(elsewhere.items()):
        table.add_row(f"{action} {where}", str(times))
    return table


def _count(hits: Counter[Kind], kind: Kind) -> str:
    return str(hits[kind]) if hits[kind] else "·"


def figures(outcome: Outcome) -> dict[str, Any]:
    """The ledger's numbers."""
    found, history = outcome.found, outcome.found.history
    waits = sorted(wait for _, wait in found.evidence.waits(history.answered_at).values()) or [0.0]
    recoveries = [each for all_ in outcome.recoveries.values() for each in all_] or [0.0]
    charged, due = sums(found.kept)
    return {
        "faults": len(outcome.journal),
        "appointments started": len(history.started),
        "finishes acknowledged": len(history.finished),
        "finishes of unknown outcome": len(history.perhaps_finished - history.finished.keys()),
        "appointments kept": len(found.kept.appointments),
        "charges kept": len(found.kept.charges),
        "charged / due": f"{charged} / {due}",
        "requests acknowledged": f"{history.share:.1%} of {history.outcomes.total()}",
        "published / already charged / differing": " / ".join(
            str(found.evidence.counts[event])
            for event in ("published", "already charged", "differs from its charge")
        ),
        "log lines dropped": found.evidence.dropped,
        "foreign messages / dead letters": f"{len(found.foreign)} / {len(found.dead_letters)}",
        "time to charge: median, slowest": f"{waits[len(waits) // 2]:.3f} s, {waits[-1]:.2f} s",
        "slowest recovery of a service": f"{max(recoveries):.2f} s",
        **{f"people who {behaviour}": history.behaviours[behaviour] for behaviour in BEHAVIOURS},
        **{
            f"{breach}": len(outcome.breaches.get(breach, []))
            for breach in ("lost", "doubled", "wrong", "changed", "unfounded", "started twice")
        },
        **{
            breach: len(outcome.breaches.get(breach, []))
            for breach in (
                "dead letters missing or wrong",
                "charged as new more than once",
                "charged otherwise",
            )
        },
    }


def _ledger(outcome: Outcome) -> Table:
    table = Table(title="Ledger", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in figures(outcome).items():
        table.add_row(name, str(value))
    return table


def write(outcome: Outcome, folder: Path) -> Path:
    """The options, what happened when, what was answered, and what was found."""
    history = outcome.found.history
    content: dict[str, Any] = {
        "options": outcome.options,
        "figures": figures(outcome),
        "breaches": {
            breach: [str(each) for each in witnesses] for breach, witnesses in outcome.breaches.items()
        },
        "shortcomings": outcome.shortcomings,
        "journal": outcome.journal,
        "answered": {
            "started": history.started,
            "finished": history.finished,
            "perhaps finished": sorted(history.perhaps_finished),
            "charges seen": {id_: str(total) for id_, total in history.seen.items()},
            "outcomes": {" ".join(kind): times for kind, times in history.outcomes.items()},
        },
    }
    path = folder / "history.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content, enc_hook=str), indent=1))
    return path


def command(options: Options) -> str:
    """What to type to run it again."""
    default = DEFAULTS[options.stack]
    differing = {
        name: value
        for name in options.__struct_fields__
        if (value := getattr(options, name)) != getattr(default, name)
    }
    if "only" in differing:
        differing["only"] = ",".join(options.only) or NO_FAULT
    chosen = {"stack": options.stack, "seed": options.seed} | differing
    return " ".join(
        ["make prove", *(f"{name.upper()}={quote(str(value))}" for name, value in chosen.items())]
    )


def exit_code(outcome: Outcome) -> int:
    """0 kept, 1 broken, 2 the run does not count."""
    return 1 if outcome.breaches else 2 if outcome.shortcomings else 0
