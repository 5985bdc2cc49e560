"""How dead letters look at a terminal. What foreign producers wrote is escaped, never obeyed."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from clinic.domain.financial.dead_letters import Outcome
from clinic.domain.messaging.dead_letters import DeadLetter, LetterGroup
from clinic.entrypoints.dead_letter_schemas import (
    MAX_HEADER_SHOWN,
    MAX_HEADERS_SHOWN,
    BytesResponse,
    bytes_response,
)
from clinic.entrypoints.formats import date
from clinic.entrypoints.telemetry import plain

MAX_VALUE_PRINTED = 1600
STYLES = {
    "waiting": "yellow",
    "replayed": "green",
    "discarded": "dim",
    "charged": "green",
    "failed again": "red",
    "handled already": "yellow",
    "differs from its charge": "yellow",
}


def show_groups(groups: Sequence[LetterGroup], more: int) -> None:
    if not groups:
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("Group", min_width=8)
    for name in ("Waiting", "Replayed", "Discarded"):
        table.add_column(name, justify="right", min_width=len(name))
    table.add_column("Reason (one of them)", overflow="fold")
    for group in groups:
        waiting = Text(str(group.waiting), STYLES["waiting"] if group.waiting else "dim")
        table.add_row(
            group.group, waiting, str(group.replayed), str(group.discarded), Text(plain(group.reason))
        )
    _console().print(table, f"… and {more} more groups with fewer waiting letters\n" if more else "")


def show_letters(letters: Sequence[DeadLetter], after: str | None) -> None:
    console = _console()
    if not letters:
        console.print("No dead letters to show.")
        return
    console.print(_line("Position", "State", "Seen", "Last seen (UTC)", "bold"))
    for letter in letters:
        console.print(
            _line(plain(letter.position), letter.state, _times(letter.attempts), date(letter.last_seen)),
            soft_wrap=True,
        )
        console.print(
            Text(f"  about {plain(letter.about) or 'nothing that can be read'}, group {letter.group}", "dim"),
            soft_wrap=True,
        )
        console.print(Padding(Text(plain(letter.reason)), (0, 0, 0, 2)))
    if after is not None:
        console.print(Text(f"\nThere are more: --after {plain(after)}"))


def _line(position: str, state: str, seen: str, last_seen: str, style: str = "") -> Text:
    return (
        Text(f"{position:<26} ", style)
        .append(f"{state:<11}", STYLES.get(state, style))
        .append(f"{seen:<10}{last_seen}", style)
    )


def show_letter(letter: DeadLetter) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("position", Text(plain(letter.position), "bold"))
    table.add_row("state", Text(letter.state, STYLES[letter.state]))
    table.add_row("about", Text(plain(letter.about)))
    table.add_row("reason", Text(plain(letter.reason)))
    table.add_row("group", letter.group)
    table.add_row(
        "seen",
        Text(
            f"{_times(letter.attempts)}, first {date(letter.first_seen)}, last {date(letter.last_seen)} UTC"
        ),
    )
    table.add_row("published", Text(f"{date(letter.published_at)} UTC"))
    if (earlier := letter.entries - len(letter.history)) > 0:
        table.add_row("", Text(f"{earlier} earlier entries are not shown", "dim"))
    for index, entry in enumerate(letter.history):
        table.add_row(
            "" if index else "handled",
            Text(f"{date(entry.at)} {entry.event} by {plain(entry.by)}: {plain(entry.note)}"),
        )
    _add_message(table, letter)
    _console().print(table)


def _add_message(table: Table, letter: DeadLetter) -> None:
    table.add_row("type", Text(plain(letter.type)))
    table.add_row("key", _content(bytes_response(letter.key, MAX_HEADER_SHOWN)))
    for index, (name, content) in enumerate(letter.headers[:MAX_HEADERS_SHOWN]):
        table.add_row(
            "" if index else "headers",
            Text(f"{plain(name)}: ").append(_content(bytes_response(content, MAX_HEADER_SHOWN))),
        )
    if (more := len(letter.headers) - MAX_HEADERS_SHOWN) > 0:
        table.add_row("", Text(f"… and {more} more", "dim"))
    if letter.cut:
        table.add_row("", Text("key and headers were not kept completely", "yellow"))
    table.add_row("value", Text(f"{letter.length} bytes, sha256 of its data {letter.sha256}"))
    table.add_row("", _content(bytes_response(letter.value, MAX_VALUE_PRINTED, letter.length), lines=True))


def _content(shown: BytesResponse | None, *, lines: bool = False) -> Text:
    """Some bytes; with `lines`, a line break in them begins a new line."""
    if shown is None:
        return Text("none", "dim")
    parts = shown.content.split("\n") if lines else [shown.content]
    text = Text("\n".join(plain(part) for part in parts))
    return text.append(" … (cut)", "dim") if shown.cut else text


def show_outcome(outcome: Outcome) -> None:
    line = Text(f"{plain(outcome.position)}  {plain(outcome.about)}  ")
    _console().print(line.append(plain(outcome.sentence), STYLES.get(outcome.outcome, "")), soft_wrap=True)


def show_summary(counts: Mapping[str, int], *, dry_run: bool) -> None:
    said = ", ".join(f"{count} {event}" for event, count in counts.items()) or "no dead letter waits"
    _console().print(
        Text(
            f"A dry run, nothing is changed: {said}." if dry_run else f"{said[0].upper()}{said[1:]}.", "bold"
        )
    )


@contextmanager
def progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error, unless the printed lines already show the progress on the terminal."""
    console = Console(stderr=True)
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("dead letters"), TimeRemainingColumn()
    hidden = sys.stdout.isatty() or not console.is_terminal
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, disable=hidden) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _console() -> Console:
    return Console(highlight=False, markup=False)
