"""The table: what was measured of each system, and their ratio in undisturbed rounds."""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from benchmarks.figures import Figure, Measurement, figure, of, ratio

DISTURBED: Final = "~"
NONE: Final = "-"
LATENCY: Final = " / "
SUM: Final = " + "


class Row(Struct, frozen=True):
    """Keys of one scenario, shown side by side: as a sum, whose ratio is the sum's, or the first one's."""

    title: str
    scenario: str
    keys: Sequence[str]
    digits: int = 0
    joined: str = LATENCY

    def combined(self, measurements: Sequence[Measurement], system: str) -> dict[int, float]:
        """By round, what a ratio is made of."""
        keys = self.keys if self.joined == SUM else self.keys[:1]
        values = [of(measurements, system, self.scenario, key) for key in keys]
        rounds = set(values[0]).intersection(*values)
        return {number: sum(found[number] for found in values) for number in rounds}


def real_rows(rates: Sequence[int]) -> list[Row]:
    """On MongoDB and Kafka."""
    return [
        Row("`POST /`, 64 connections: requests/s", "start", ["rate"]),
        Row("— CPU µs a request: service + mongod", "start", ["cpu.appointment", "cpu.mongod"], 0, SUM),
        Row("— p50 / p99, ms", "start", ["p50", "p99"], 1),
        Row("the same, each with an `Idempotency-Key`: requests/s", "start keyed", ["rate"]),
        Row("— CPU µs a request: service + mongod", "start keyed", ["cpu.appointment", "cpu.mongod"], 0, SUM),
        Row("`POST /{id}/`, 64 connections: requests/s", "finish", ["rate"]),
        Row(
            "— CPU µs a finish, until its event is published: service + mongod + kafka",
            "finish",
            ["cpu.appointment", "cpu.mongod", "cpu.kafka"],
            0,
            SUM,
        ),
        *AT_HAND,
        Row(
            "— CPU µs a finish: service + mongod + kafka",
            "finish loaded",
            ["cpu.appointment", "cpu.mongod", "cpu.kafka"],
            0,
            SUM,
        ),
        Row("drain of a backlog: events/s", "drain", ["rate"]),
        Row("— CPU µs an event: service + mongod", "drain", ["cpu.financial", "cpu.mongod"], 0, SUM),
        *(row for rate in rates for row in _at_rate(rate)),
        Row("idle, both services: % of a core", "idle", ["idle"], 1),
        *STARTS,
    ]


def embedded_rows(rates: Sequence[int]) -> list[Row]:
    """On SQLite."""
    return [
        Row("`POST /`, 64 connections: requests/s", "start", ["rate"]),
        Row("— CPU µs a request", "start", ["cpu.appointment"]),
        Row("— p50 / p99, ms", "start", ["p50", "p99"], 1),
        Row("the same, each with an `Idempotency-Key`: requests/s", "start keyed", ["rate"]),
        Row("— CPU µs a request", "start keyed", ["cpu.appointment"]),
        Row("`POST /{id}/`, 64 connections: requests/s", "finish", ["rate"]),
        Row("— CPU µs a finish, until its event is published", "finish", ["cpu.appointment"]),
        *AT_HAND,
        Row("— CPU µs a finish", "finish loaded", ["cpu.appointment"]),
        Row("drain of a backlog: events/s", "drain", ["rate"]),
        Row("— CPU µs an event", "drain", ["cpu.financial"]),
        *(row for rate in rates for row in _at_rate(rate)),
        Row("idle, both services: % of a core", "idle", ["idle"], 1),
        *STARTS,
    ]


def _at_rate(rate: int) -> list[Row]:
    return [
        Row(f"{rate} finishes/s: answer p50 / p99, ms", f"{rate}/s", ["answer.p50", "answer.p99"], 1),
        Row("— charge p50 / p99, ms", f"{rate}/s", ["charge.p50", "charge.p99"], 1),
        Row("— CPU ms a finish, all processes", f"{rate}/s", ["cpu"], 1),
    ]


AT_HAND: Final = [
    Row("— at hand, so without a load: %", "finish", ["at_hand"]),
    Row("the same after a restart, each loaded: requests/s", "finish loaded", ["rate"]),
]
STARTS: Final = [
    Row("appointment service: start to ready, s", "begin appointment", ["ready.appointment"], 2),
    Row("— memory, MB", "begin appointment", ["memory.appointment"]),
    Row("financial service: start to ready, s", "begin financial", ["ready.financial"], 2),
    Row("— memory, MB", "begin financial", ["memory.financial"]),
]


def table(
    measurements: Sequence[Measurement],
    rows: Sequence[Row],
    systems: Sequence[str],
    compared: Sequence[tuple[str, str]],
) -> list[list[str]]:
    """Title, one cell a system, and the ratio of each compared pair; the first line is the heading."""
    heading = ["", *systems, *(f"{ours} ÷ {theirs}" for ours, theirs in compared)]
    shown = [
        [
            row.title,
            *(cell(measurements, row, system) for system in systems),
            *(_ratio(measurements, row, *pair) for pair in compared),
        ]
        for row in rows
    ]
    return [heading, *(line for line in shown if any(text != NONE for text in line[1 : len(systems) + 1]))]


def cell(measurements: Sequence[Measurement], row: Row, system: str) -> str:
    """The medians; behind a single one the lowest and the highest round, behind a disturbed one its mark."""
    own = [found for found in measurements if (found.system, found.scenario) == (system, row.scenario)]
    quiet = [found for found in own if not found.is_disturbed]
    mark = "" if quiet else DISTURBED
    for found in quiet or own:
        if found.note:
            return found.note + mark
    figures = [figure(found.values[key] for found in quiet or own if key in found.values) for key in row.keys]
    known = [found for found in figures if found]
    if not known:
        return NONE
    text = row.joined.join(f"{found.median:,.{row.digits}f}" for found in known)
    return text + (_spread(known[0], row.digits) if len(row.keys) == 1 else "") + mark


def _spread(found: Figure, digits: int) -> str:
    if found.rounds == 1:
        return ""
    return f" ({found.low:,.{digits}f} to {found.high:,.{digits}f})"


def _ratio(measurements: Sequence[Measurement], row: Row, ours: str, theirs: str) -> str:
    found = ratio(row.combined(measurements, ours), row.combined(measurements, theirs))
    return f"{found.median:.2f}{_spread(found, 2)}" if found else NONE


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """As a table of Markdown."""
    heading, *rest = lines
    ruler = ["---", *("---:" for _ in heading[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heading, ruler, *rest)) + "\n"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """For a terminal."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def by_stack(measurements: Sequence[Measurement]) -> Mapping[str, list[Measurement]]:
    """Stacks stand apart: no system is on two in one table."""
    stacks: dict[str, list[Measurement]] = {}
    for found in measurements:
        stacks.setdefault(found.stack, []).append(found)
    return stacks
