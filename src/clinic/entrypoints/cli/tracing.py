"""`clinic trace`: where a charge is. Each context answers with its own steps; here they are put together."""

import argparse
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import uvloop
from msgspec import Struct
from msgspec.structs import asdict
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clinic.domain.errors import Misconfigured, NotFound, Unavailable
from clinic.domain.messaging import Step, Trace
from clinic.entrypoints.cli.operator_session import visiting
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.formats import as_json
from clinic.entrypoints.settings import Settings
from clinic.entrypoints.telemetry import plain

ABOUT = """Show how far an appointment has come on the way to its charge: each step, its time and the wait before it, and what it
waits for now. Where one context's store cannot be read, the steps of the other are shown, and the reason."""
EXIT_CODES = "Exit codes: 0 something is known of it, charged or not; 1 nothing is, or nothing can be read."
SKEW = timedelta(seconds=2)
"""How far the clocks of two machines may be apart before their steps change places."""
TWO_DAYS = 48
IN_WHOLE_SECONDS = ("started", "finished")

Unreadable = Misconfigured | Unavailable
Answer = Trace | Unreadable | None
WaitsFor = Literal["to be finished", "to be published", "to be received", "a person", "nothing", "unknown"]


class TracedStep(Step, frozen=True, kw_only=True):
    """A step, and the seconds since the one before it: whole ones, rounded down, next to a step that is in whole seconds."""

    waited_seconds: float | None = None


class Traced(Struct, frozen=True, kw_only=True):
    """The answer of `clinic trace --json`. `unreadable` names each context whose store cannot be read, and why."""

    appointment_id: UUID
    steps: list[TracedStep]
    waits_for: WaitsFor
    explanation: str
    unreadable: dict[str, str]


def add_to(commands: Any) -> None:
    """Add `trace` to the commands."""
    trace = commands.add_parser("trace", help="show where the charge of an appointment is", description=ABOUT, epilog=EXIT_CODES)
    trace.add_argument("appointment_id", type=UUID, metavar="APPOINTMENT", help="its id")
    trace.add_argument("--json", action="store_true", help="one JSON object")
    trace.set_defaults(command=_trace)


def _trace(settings: Settings, chosen: argparse.Namespace) -> None:
    traced = uvloop.run(trace(AppointmentContainer(settings=settings), FinancialContainer(settings=settings), chosen.appointment_id))
    if chosen.json:
        sys.stdout.write(as_json(traced) + "\n")
    else:
        _show(traced)


async def trace(front_desk: AppointmentContainer, accounting: FinancialContainer, appointment_id: UUID) -> Traced:
    """Ask both contexts. Raises `NotFound` where neither knows it, and what keeps them from being read where none answers."""
    appointment = await _answer(front_desk, front_desk.trace_appointment(), appointment_id)
    financial = await _answer(accounting, accounting.trace_charge(), appointment_id)
    answers = {"appointment": appointment, "financial": financial}
    known = [answer for answer in answers.values() if isinstance(answer, Trace)]
    unreadable = {name: answer for name, answer in answers.items() if isinstance(answer, Unreadable)}
    if not known:
        for name, reason in unreadable.items():
            raise Unavailable(f"the {name} context cannot be read, and nothing else is known of {appointment_id}: {reason}")
        raise NotFound(f"there is no appointment {appointment_id}, no charge of it and no dead letter about it")
    waits_for, explanation = _waiting(appointment, financial)
    return Traced(
        appointment_id=appointment_id,
        steps=_with_waits(_put_together([step for answer in known for step in answer.steps])),
        waits_for=waits_for,
        explanation=explanation,
        unreadable={name: str(reason) for name, reason in unreadable.items()},
    )


async def _answer(
    container: AppointmentContainer | FinancialContainer, ask: Callable[[UUID], Awaitable[Trace]], appointment_id: UUID
) -> Answer:
    try:
        async with visiting(container):
            return await ask(appointment_id)
    except NotFound:
        return None
    except (Misconfigured, Unavailable) as reason:
        return reason


def _put_together(steps: Sequence[Step]) -> list[Step]:
    """As they follow, but for what was clearly earlier: news that was told again is younger than the charge."""
    together: list[Step] = []
    places = set[str | None]()
    for step in steps:
        if step.what == "published":
            if step.position in places:
                continue  # both contexts know of it
            places.add(step.position)
        later = (index for index, each in enumerate(together) if each.at > step.at + SKEW)
        together.insert(next(later, len(together)), step)
    return together


def _with_waits(steps: Sequence[Step]) -> list[TracedStep]:
    return [
        TracedStep(**asdict(step), waited_seconds=_wait(before, step) if before else None)
        for before, step in zip([None, *steps], steps, strict=False)
    ]


def _wait(before: Step, step: Step) -> float:
    wait = max((step.at - before.at).total_seconds(), 0.0)  # clocks of two machines differ
    exact = not {before.what, step.what}.intersection(IN_WHOLE_SECONDS)
    return wait if exact else float(int(wait))


def _waiting(appointment: Answer, financial: Answer) -> tuple[WaitsFor, str]:
    if isinstance(financial, Trace) and financial.waits_for:
        is_finished = isinstance(appointment, Unreadable) or (appointment and appointment.waits_for != "to be finished")
        return financial.waits_for, financial.explanation + ("" if is_finished else ", though no finished appointment is known by this id")
    if isinstance(appointment, Trace) and appointment.waits_for:
        return appointment.waits_for, appointment.explanation
    for name, answer in (("appointment", appointment), ("financial", financial)):
        if isinstance(answer, Unreadable):
            return "unknown", f"the {name} context cannot be read"
    also = f"; {financial.explanation}" if isinstance(financial, Trace) else ""
    if appointment is None:
        return "unknown", f"no finished appointment is known by this id{also}"
    return "to be received", f"does the financial service run? Where it does, `clinic audit --repair` tells the news again{also}"


def _show(traced: Traced) -> None:
    console = Console(highlight=False)
    console.print(Text.assemble("Appointment ", (str(traced.appointment_id), "bold")))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for step in traced.steps:
        colour = "yellow" if step.what in {"set aside", "failed again", "discarded"} else "green"
        table.add_row(Text(step.what, colour), _moment(step), _after(step), Text(plain(_details(step))))
    console.print(table)
    for name, reason in traced.unreadable.items():
        console.print(Text(f"The {name} context cannot be read: {reason}", "yellow"))
    console.print(Text.assemble((_WAITS[traced.waits_for], "bold"), f": {plain(traced.explanation)}"))


_WAITS: dict[WaitsFor, str] = {
    "to be finished": "It waits to be finished",
    "to be published": "It waits to be published",
    "to be received": "It waits to be received",
    "a person": "It waits for a person",
    "nothing": "It waits for nothing",
    "unknown": "What it waits for is not known",
}


def _moment(step: TracedStep) -> str:
    return _printed(step.at, "seconds" if step.what in IN_WHOLE_SECONDS else "milliseconds")


def _printed(moment: datetime, precision: str) -> str:
    return moment.replace(tzinfo=None).isoformat(" ", precision)


def _after(step: TracedStep) -> str:
    wait = step.waited_seconds
    if wait is None:
        return ""
    if wait == 0:
        return "< 1 s" if step.what in {"finished", "saved"} else "< 1 ms"
    minutes, seconds = divmod(wait, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours >= TWO_DAYS:
        return f"{hours // 24} days"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {int(seconds)} s"
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _details(step: TracedStep) -> str:
    """What is worth knowing, in a few words."""
    attempts = f"attempt {step.attempts}" if step.attempts else ""
    total = f"{step.total} by {step.note}" if step.total else ""
    by = f"by {step.by}" if step.by else ""
    note = step.note if step.note and not step.total else ""
    return ", ".join(filter(None, [total, by, step.position or "", attempts, note]))
