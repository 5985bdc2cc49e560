"""`clinic trace`: where a charge is. Each context answers with its own steps; here they are put together."""

import argparse
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import uvloop
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clinic.domain.errors import Misconfigured, NotFound, Unavailable
from clinic.domain.reconciliation.tracing import (
    IN_WHOLE_SECONDS,
    Answer,
    Traced,
    TracedStep,
    WaitsFor,
    joined,
)
from clinic.domain.tracing import Trace
from clinic.entrypoints.cli.operator_session import attached, write_json
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.settings import Settings
from clinic.entrypoints.telemetry import plain

ABOUT = """Show how far an appointment has come on the way to its charge: each step, its time, the wait
before it, and what it waits for now. If one context's store cannot be read, the steps of the other are shown,
and the reason."""
EXIT_CODES = "Exit codes: 0 the appointment is known, charged or not; 1 it is not, or nothing can be read."
TWO_DAYS = 48


def add_to(commands: Any) -> None:
    """Add `trace` to the commands."""
    trace = commands.add_parser(
        "trace", help="show where the charge of an appointment is", description=ABOUT, epilog=EXIT_CODES
    )
    trace.add_argument("appointment_id", type=UUID, metavar="APPOINTMENT", help="its id")
    trace.add_argument("--json", action="store_true", help="one JSON object")
    trace.set_defaults(command=_trace)


def _trace(settings: Settings, args: argparse.Namespace) -> None:
    traced = uvloop.run(
        trace(
            AppointmentContainer(settings=settings),
            FinancialContainer(settings=settings),
            args.appointment_id,
        )
    )
    if args.json:
        write_json(traced)
    else:
        _show(traced)


async def trace(
    appointments: AppointmentContainer, charges: FinancialContainer, appointment_id: UUID
) -> Traced:
    """Ask both contexts. Raises `NotFound` if neither knows it, `Unavailable` if neither can be read."""
    appointment = await _answer(appointments, appointments.trace_appointment(), appointment_id)
    financial = await _answer(charges, charges.trace_charge(), appointment_id)
    return joined(appointment_id, appointment, financial)


async def _answer(
    container: AppointmentContainer | FinancialContainer,
    ask: Callable[[UUID], Awaitable[Trace]],
    appointment_id: UUID,
) -> Answer:
    try:
        async with attached(container):
            return await ask(appointment_id)
    except NotFound:
        return None
    except (Misconfigured, Unavailable) as reason:
        return reason


def _show(traced: Traced) -> None:
    console = Console(highlight=False)
    console.print(Text.assemble("Appointment ", (str(traced.appointment_id), "bold")))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for step in traced.steps:
        colour = "yellow" if step.event in {"dead-lettered", "failed again", "discarded"} else "green"
        table.add_row(Text(step.event, colour), _moment(step), _after(step), Text(plain(_details(step))))
    console.print(table)
    for name, reason in traced.unreadable.items():
        console.print(Text(f"The {name} context cannot be read: {reason}", "yellow"))
    console.print(Text.assemble((_state(traced), "bold"), f": {plain(traced.explanation)}"))


def _state(traced: Traced) -> str:
    if traced.waits_for == "nothing":
        return "Done" if any(step.event == "charged" for step in traced.steps) else "Not charged"
    return _WAITS[traced.waits_for]


_WAITS: dict[WaitsFor, str] = {
    "to be finished": "Waiting to be finished",
    "to be published": "Waiting to be published",
    "to be received": "Waiting to be received",
    "a person": "Waiting for a person",
    "unknown": "Unknown",
}


def _moment(step: TracedStep) -> str:
    return _printed(step.at, "seconds" if step.event in IN_WHOLE_SECONDS else "milliseconds")


def _printed(moment: datetime, precision: str) -> str:
    return moment.replace(tzinfo=None).isoformat(" ", precision)


def _after(step: TracedStep) -> str:
    wait = step.waited_seconds
    if wait is None:
        return ""
    if wait == 0:
        return "< 1 s" if step.event in {"finished", "saved"} else "< 1 ms"
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
