"""`clinic audit`: every finished appointment beside its charge."""

import argparse
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from importlib import import_module
from typing import Any, Literal, Protocol
from uuid import UUID

import uvloop
from msgspec import Struct
from msgspec.structs import asdict
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.text import Text

from clinic.domain.appointment.ports import AppointmentFilter
from clinic.domain.errors import Misconfigured
from clinic.domain.events import AppointmentFinished
from clinic.domain.messaging.messages import PublicationStatus
from clinic.domain.money import Money
from clinic.domain.reconciliation.audit import FinishedAppointments
from clinic.domain.reconciliation.findings import Finding
from clinic.domain.reconciliation.repair import Repair
from clinic.entrypoints.cli.operator_session import (
    attached,
    interval,
    refuse_in_process,
    seconds,
    whole,
    write_json,
)
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.settings import Settings
from clinic.entrypoints.telemetry import plain

EXIT_FINDINGS = 3
INDENTED = 10
ABOUT = """Compare every finished appointment with its charge, while the services run, and list what is
missing, orphaned or wrong. Without --repair nothing is changed. Missing charges are mended by publishing
their events again; charges are never changed or removed."""
EXIT_CODES = "Exit codes: 0 all is well, or was mended; 1 the audit failed; 3 something still needs a person."


class Found(Struct, frozen=True, kw_only=True, tag_field="record", tag="finding"):
    """A line of `clinic audit --json`: what is not as it should be about one appointment.

    `missing`: finished and not charged. `orphaned`: charged and not finished. `wrong`: not what its own
    policy makes of the appointment. `remedy` is what mends it; `outcome` is the result of --repair, else
    null.
    """

    appointment_id: UUID
    kind: Literal["missing", "orphaned", "wrong"]
    expected: Money | None
    found: Money | None
    remedy: Literal["republish", "replay", "publication", "a person"]
    explanation: str
    outcome: Literal["charged", "republished", "dead-lettered", "left alone"] | None
    outcome_explanation: str | None
    charged: Money | None


class Summary(Struct, frozen=True, kw_only=True, tag_field="record", tag="summary"):
    """The last line of `clinic audit --json`. `remaining` counts findings that are not charged by now."""

    compared: int
    in_flight: int
    missing: int
    orphaned: int
    wrong: int
    charged: int
    remaining: int


class Report(Protocol):
    """Where the findings go."""

    def found(self, finding: Finding, repair: Repair | None) -> None: ...
    def ended(self, summary: Summary) -> None: ...


def add_to(commands: Any) -> None:
    """Add `audit` to the commands."""
    audit = commands.add_parser(
        "audit",
        help="find finished appointments without their charge, and mend them",
        description=ABOUT,
        epilog=EXIT_CODES,
    )
    audit.add_argument("--repair", action="store_true", help="publish the events of missing charges again")
    grace = (
        "an appointment finished, published or charged within this time (by this machine's clock) "
        "is in flight and only counted (60)"
    )
    audit.add_argument("--grace", type=seconds, default=60.0, metavar="SECONDS", help=grace)
    wait = "how long a repair waits for the charges, in seconds; 0: it does not (default: 10)"
    audit.add_argument("--wait", type=seconds, default=10.0, metavar="SECONDS", help=wait)
    audit.add_argument(
        "--json", action="store_true", help="a JSON object a line: each finding, and a summary as the last"
    )
    every = (
        "do not end: look at what was started in the last day so often (like 90s, 5m, 1h), at all once a "
        "day, and answer /findings/, /metrics and /health/ready at CLINIC_AUDIT_HOST and CLINIC_AUDIT_PORT"
    )
    audit.add_argument("--every", type=interval, metavar="TIME", help=every)
    most = "with --every and --repair: a round repairs so many at most, then it asks for a person (100)"
    audit.add_argument("--most", type=whole, default=100, metavar="COUNT", help=most)
    audit.set_defaults(command=_audit)


def _audit(settings: Settings, args: argparse.Namespace) -> int:
    if args.every is not None:
        return _stand(settings, args)
    appointment, financial = AppointmentContainer(settings=settings), FinancialContainer(settings=settings)
    report: Report = Lines() if args.json else Readable(args.repair)
    wait = args.wait if args.repair else None
    return uvloop.run(audit(appointment, financial, report, timedelta(seconds=args.grace), wait))


def _stand(settings: Settings, args: argparse.Namespace) -> int:
    if args.json:
        raise Misconfigured("--every writes a log, and no JSON: leave --json out, and ask /findings/")
    refuse_in_process(settings)
    watcher = import_module("clinic.entrypoints.watcher.main")  # a room that may stay closed
    grace, repairs = timedelta(seconds=args.grace), args.most if args.repair else None
    watcher.run(settings, watcher.Plan(every=args.every, grace=grace, repairs=repairs, wait=args.wait))
    return 0


async def audit(
    appointment: AppointmentContainer,
    financial: FinancialContainer,
    report: Report,
    grace: timedelta,
    wait: float | None,
) -> int:
    """Compare all, report, and repair unless `wait`, in seconds, is None. Returns the exit code."""
    finished = Finished(appointment)
    compare = financial.audit_charges()
    counted = Counter[str]()
    async with attached(appointment, financial):
        with _progress() as progress:
            bar = progress.add_task("", total=await compare.size())

            async def chunks() -> AsyncIterator[Sequence[Finding]]:
                async for chunk in compare(finished, grace):
                    counted.update(compared=chunk.appointments, in_flight=chunk.in_flight)
                    progress.advance(bar, chunk.appointments)
                    if chunk.findings:
                        progress.stop()
                        yield chunk.findings
                        progress.start()

            async for finding, repair in _repaired(financial, finished, chunks(), wait):
                report.found(finding, repair)
                counted[finding.kind] += 1
                counted["charged" if repair and repair.outcome == "charged" else "remaining"] += 1
    summary = Summary(**{name: counted[name] for name in Summary.__struct_fields__})
    report.ended(summary)
    return EXIT_FINDINGS if summary.remaining else 0


class Finished(FinishedAppointments):
    """What the appointment context's use cases answer."""

    def __init__(self, appointment: AppointmentContainer) -> None:
        self._list = appointment.list_appointments()
        self._find = appointment.find_finished_event()
        self._republish = appointment.republish_finished()

    async def page(self, limit: int, after: UUID | None = None) -> Sequence[AppointmentFinished]:
        page = await self._list(AppointmentFilter(finished=True), limit, after)
        return [found.finished_event for found in page if found.finished_event]

    async def find(self, appointment_id: UUID) -> tuple[AppointmentFinished, PublicationStatus | None] | None:
        return await self._find(appointment_id)

    async def republish(self, appointment_id: UUID) -> None:
        await self._republish(appointment_id)


async def _repaired(
    financial: FinancialContainer,
    finished: FinishedAppointments,
    chunks: AsyncIterator[Sequence[Finding]],
    wait: float | None,
) -> AsyncIterator[tuple[Finding, Repair | None]]:
    if wait is None:
        async for findings in chunks:
            for finding in findings:
                yield finding, None
    else:
        async for pair in financial.repair_charges()(chunks, finished, wait):
            yield pair


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = "comparing", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not console.is_terminal,
    )


class Lines:
    """A JSON object a line."""

    def found(self, finding: Finding, repair: Repair | None) -> None:
        write_json(
            Found(
                **asdict(finding),
                outcome=repair.outcome if repair else None,
                outcome_explanation=repair.explanation if repair else None,
                charged=repair.total if repair else None,
            )
        )

    def ended(self, summary: Summary) -> None:
        write_json(summary)


class Readable:
    """For a person."""

    def __init__(self, repairs: bool) -> None:
        self._console = Console(highlight=False)
        self._repairs = repairs

    def found(self, finding: Finding, repair: Repair | None) -> None:
        amounts = [
            f"charged {finding.found}" if finding.found else "",
            f"due {finding.expected}" if finding.expected else "",
        ]
        head = Text.assemble(
            (f"{finding.kind:<{INDENTED}}", "bold red"),
            f"{finding.appointment_id}  ",
            ", ".join(filter(None, amounts)),
        )
        self._console.print(head)
        self._explain(finding.explanation)
        if repair:
            self._explain(f"→ {repair.explanation}", "green" if repair.outcome == "charged" else "yellow")

    def ended(self, summary: Summary) -> None:
        found = f"{summary.missing:,} missing, {summary.orphaned:,} orphaned, {summary.wrong:,} wrong"
        self._console.print(f"{summary.compared:,} compared: {found}; {summary.in_flight:,} in flight")
        if self._repairs and summary.missing:
            self._console.print(f"{summary.charged:,} charged now, {summary.remaining:,} remaining")
        elif summary.missing:
            self._console.print("`clinic audit --repair` publishes the missing events again")

    def _explain(self, sentence: str, style: str = "") -> None:
        self._console.print(Padding(Text(plain(sentence), style), (0, 0, 0, INDENTED), expand=False))
