"""The `clinic` command."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import uvloop

from clinic.domain.errors import ClinicError, Misconfigured
from clinic.entrypoints import discovery
from clinic.entrypoints.cli.operator_session import is_text
from clinic.entrypoints.cli.supervisor import has_console, supervise
from clinic.entrypoints.environment import environment
from clinic.entrypoints.log_writer import queue_standard_streams
from clinic.entrypoints.services import serve_appointment, serve_both, serve_financial
from clinic.entrypoints.settings import Settings, load, unknown
from clinic.entrypoints.telemetry import configure_logging, plain

SERVICES = {"appointment": serve_appointment, "financial": serve_financial}
CONSOLE = "console"
FOR_PEOPLE = ("demo", "dead_letters", "audit", "tracing", "plugins", "settings")
"""Modules of commands that a person types. A service needs neither them nor what they print with."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. The exit code is 0 after success, 1 after a failure, 2 for a wrong command line.

    Commands of an operator exit with 3 if they found something that needs a person.
    """
    words = sys.argv[1:] if arguments is None else arguments
    parser = _parser(() if words[:1] == ["run"] else FOR_PEOPLE)
    for word in words:
        if not is_text(word):
            parser.error(f"{word!a} cannot be used: its bytes are not UTF-8")
    args = parser.parse_args(words)
    try:
        if not args.needs_settings:
            return int(args.command() or 0)
        given = environment()
        settings = load(given)
        os.environ.update({name: text for name, text in given.items() if name.startswith("OTEL_")})
        for sentence in unknown(given, settings):
            print(f"clinic: {plain(sentence)}", file=sys.stderr)
        configure_logging(settings)
        return int(args.command(settings, args) or 0)
    except ClinicError as error:
        print(f"clinic: {plain(str(error))}", file=sys.stderr)
        return 1


def _parser(modules: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clinic", description="Appointments become charges, exactly once.")
    parser.set_defaults(needs_settings=True)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run both services, or the one that is named")
    run.add_argument("service", nargs="?", choices=[*SERVICES, CONSOLE], help="only this one")
    run.add_argument(
        "--in-process",
        action="store_true",
        help="both in one process: what the memory store and transport need",
    )
    run.set_defaults(command=_run)
    for name in modules:
        import_module(f"clinic.entrypoints.cli.{name}").add_to(commands)
    return parser


def _run(settings: Settings, args: argparse.Namespace) -> int | None:
    queue_standard_streams()
    try:
        return _run_services(settings, args)
    except ClinicError:
        raise
    except Exception as error:  # noqa: BLE001 — unexpected: the log has its traceback
        cause = " ".join(str(error).split())
        print(f"clinic: the service ended: {type(error).__name__}: {cause}", file=sys.stderr)
        return 1


def _run_services(settings: Settings, args: argparse.Namespace) -> int | None:
    if args.in_process:
        _refuse_a_shorter_life(settings)
        uvloop.run(serve_both(settings))
        return None
    if args.service == CONSOLE:
        _run_console(settings)
        return None
    _refuse_in_process(settings)
    if args.service is None:
        return supervise(settings)
    uvloop.run(SERVICES[args.service](settings))
    return None


def _run_console(settings: Settings) -> None:
    if not has_console():
        raise Misconfigured("the console is not installed: pip install 'clinic[console]'")
    import_module("clinic.entrypoints.console.main").run(settings)  # a room that may stay closed


def _refuse_a_shorter_life(settings: Settings) -> None:
    """Of events than of the appointments that they come from: what was on its way at an end would be lost."""
    if discovery.transport(settings.transport).in_process and not discovery.store(settings.store).in_process:
        raise Misconfigured(
            f"CLINIC_TRANSPORT={settings.transport} forgets at each end what is not charged yet, and "
            f"CLINIC_STORE={settings.store} knows them as published: set CLINIC_STORE=memory, too, to try "
            "things out, or CLINIC_TRANSPORT=sqlite"
        )


def _refuse_in_process(settings: Settings) -> None:
    for name, technology in (
        ("store", discovery.store(settings.store)),
        ("transport", discovery.transport(settings.transport)),
    ):
        if technology.in_process:
            raise Misconfigured(
                f"CLINIC_{name.upper()}={getattr(settings, name)} needs both services in one process: use "
                f"`clinic run --in-process`, or set it to sqlite"
            )
