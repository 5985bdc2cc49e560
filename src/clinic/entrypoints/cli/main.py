"""The `clinic` command."""

import argparse
import sys
from collections.abc import Sequence

import uvloop

from clinic.domain.errors import ClinicError, Misconfigured
from clinic.entrypoints.cli import audit, dead_letters, tracing
from clinic.entrypoints.cli.demo import demo
from clinic.entrypoints.cli.operator_session import is_text
from clinic.entrypoints.cli.supervisor import supervise
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.service import Lifecycle, Service, serve
from clinic.entrypoints.settings import Settings, environment, load, unknown
from clinic.entrypoints.telemetry import configure_logging
from clinic.entrypoints.web import appointment, financial


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0 when it ended as asked, 1 when something is wrong, 2 for unknown
    words.

    Commands of an operator end with 3 where they found something that needs a person.
    """
    parser = _parser()
    words = sys.argv[1:] if arguments is None else arguments
    for word in words:
        if not is_text(word):
            parser.error(f"{word!a} cannot be used: its bytes are not UTF-8")
    args = parser.parse_args(words)
    try:
        given = environment()
        settings = load(given)
        for sentence in unknown(given):
            print(f"clinic: {sentence}", file=sys.stderr)
        configure_logging(settings)
        return int(args.command(settings, args) or 0)
    except ClinicError as error:
        print(f"clinic: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clinic", description="Appointments become charges, exactly once.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run both services, or the one that is named")
    run.add_argument("service", nargs="?", choices=["appointment", "financial"], help="only this one")
    run.add_argument(
        "--in-process",
        action="store_true",
        help="both in one process: what the memory store and transport need",
    )
    run.set_defaults(command=_run)
    show = commands.add_parser(
        "demo", help="start and finish an appointment on a fresh folder, and see its charge arrive"
    )
    show.set_defaults(command=lambda _settings, _chosen: demo())
    dead_letters.add_to(commands)
    audit.add_to(commands)
    tracing.add_to(commands)
    return parser


def _run(settings: Settings, args: argparse.Namespace) -> int | None:
    if args.in_process:
        uvloop.run(_serve_both(settings))
        return None
    _refuse_memory_apart(settings)
    if args.service is None:
        return supervise(settings)
    uvloop.run(_serve_one(settings, args.service))
    return None


def _refuse_memory_apart(settings: Settings) -> None:
    for name in ("store", "transport"):
        if getattr(settings, name) == "memory":
            raise Misconfigured(
                f"CLINIC_{name.upper()}=memory needs both services in one process: use `clinic run "
                f"--in-process`, or set it to sqlite"
            )


async def _serve_one(settings: Settings, service: str) -> None:
    if service == "appointment":
        await serve(_appointment_service(settings, AppointmentContainer(settings=settings)))
    else:
        await serve(_financial_service(settings, FinancialContainer(settings=settings)))


async def _serve_both(settings: Settings) -> None:
    appointments = AppointmentContainer(settings=settings)
    charges = FinancialContainer(settings=settings, memory_log=appointments.memory_log)
    await serve(_appointment_service(settings, appointments), _financial_service(settings, charges))


def _appointment_service(settings: Settings, container: AppointmentContainer) -> Service:
    life = Lifecycle(container.telemetry())
    app = appointment.create_app(container, life)
    return Service(app, life, settings.appointment_host, settings.appointment_port, "CLINIC_APPOINTMENT")


def _financial_service(settings: Settings, container: FinancialContainer) -> Service:
    life = Lifecycle(container.telemetry())
    app = financial.create_app(container, life)
    return Service(app, life, settings.financial_host, settings.financial_port, "CLINIC_FINANCIAL")
