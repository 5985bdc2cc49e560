"""`clinic dead-letters`: list, show, replay and discard them, beside the running service."""

import argparse
import getpass
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import uvloop
from msgspec import Struct
from msgspec.structs import replace

from clinic.domain.errors import Misconfigured, NotFound
from clinic.domain.financial.dead_letters import DeadLetterSelection, Outcome
from clinic.domain.messaging.dead_letters import DeadLetterFilter
from clinic.entrypoints.cli import dead_letters_view as printed
from clinic.entrypoints.cli.operator_session import attached, is_text, write_json
from clinic.entrypoints.containers import FinancialContainer
from clinic.entrypoints.dead_letter_schemas import (
    DeadLetterResponse,
    GroupResponse,
    dead_letter_details,
    dead_letter_response,
    group_response,
    outcome_response,
)
from clinic.entrypoints.settings import Settings
from clinic.entrypoints.telemetry import configure_logging

EXIT_SOME_FAILED = 3
DEFAULT_LIMIT = 20
MAX_LETTERS = 100
MAX_GROUPS = 100

Action = Callable[[FinancialContainer, argparse.Namespace], Awaitable[int]]


class LetterList(Struct, frozen=True):
    """What `list --json` writes: groups and letters. Give `next` to --after for more, unless it is null.

    The groups are the 100 with the most waiting letters; `more_groups` counts the others.
    """

    groups: list[GroupResponse]
    more_groups: int
    items: list[DeadLetterResponse]
    next: str | None


def add_to(commands: Any) -> None:
    """Add `dead-letters` to the commands."""
    about = (
        "What arrived and could not be charged is kept, with its reason, until a person "
        "replays or discards it; and after that, too."
    )
    parser = commands.add_parser(
        "dead-letters", help="list, show, replay or discard what could not be charged", description=about
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_list(actions)
    _add_show(actions)
    _add_replay(actions)
    _add_discard(actions)


def _add_list(actions: Any) -> None:
    parser = _action(actions, "list", "list those that wait, and the groups of all", _list)
    parser.add_argument(
        "--state",
        choices=["waiting", "replayed", "discarded", "all"],
        default="waiting",
        help="instead of those that wait",
    )
    parser.add_argument(
        "--group", help="only this group: letters that were refused for the same kind of reason"
    )
    parser.add_argument("--about", metavar="ID", help="only those about this appointment")
    parser.add_argument(
        "--limit",
        type=_number,
        default=DEFAULT_LIMIT,
        metavar="N",
        help=f"how many, {MAX_LETTERS} at most ({DEFAULT_LIMIT})",
    )
    parser.add_argument("--after", default="", metavar="POSITION", help="only those behind this position")
    parser.add_argument("--groups", action="store_true", help="only the groups")


def _add_show(actions: Any) -> None:
    parser = _action(actions, "show", "show one: the message, the reason, and who did what with it", _show)
    parser.add_argument("position", metavar="POSITION")


def _add_replay(actions: Any) -> None:
    about = (
        f"Charge their appointments, as if they had just arrived. The exit code is "
        f"{EXIT_SOME_FAILED} when some fail again."
    )
    parser = _action(actions, "replay", "charge their appointments, once the cause is mended", _replay, about)
    _add_choice(parser)


def _add_discard(actions: Any) -> None:
    about = (
        "Note that they are not to be charged, who says so and why. They are kept all the "
        "same, and can be replayed by position."
    )
    parser = _action(actions, "discard", "note that they are not to be charged, and why", _discard, about)
    _add_choice(parser)
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why")


def _action(
    actions: Any, name: str, summary: str, action: Action, about: str | None = None
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=summary, description=about or f"{summary[0].upper()}{summary[1:]}."
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.set_defaults(command=lambda settings, args: _run(settings, args, action))
    return parser


def _add_choice(parser: argparse.ArgumentParser) -> None:
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("position", nargs="?", metavar="POSITION", help="this one, whatever its state")
    choice.add_argument("--group", help="those of this group that wait")
    choice.add_argument("--all", action="store_true", help="all that wait")
    parser.add_argument("--by", metavar="NAME", help="who does it (the login name)")
    parser.add_argument("--dry-run", action="store_true", help="say what would happen, and change nothing")


def _number(text: str) -> int:
    limits = {str(number): number for number in range(1, MAX_LETTERS + 1)}
    if text not in limits:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number from 1 to {MAX_LETTERS}: --after continues behind the end of a list"
        )
    return limits[text]


def _run(settings: Settings, args: argparse.Namespace, action: Action) -> int:
    if sys.stderr.isatty():
        configure_logging(replace(settings, log_level="error"))  # the command itself prints what happens
    return uvloop.run(_beside_the_service(FinancialContainer(settings=settings), args, action))


async def _beside_the_service(container: FinancialContainer, args: argparse.Namespace, action: Action) -> int:
    async with attached(container):
        try:
            return await action(container, args)
        except NotFound as error:
            raise NotFound(f"{error}: `clinic dead-letters list --state all` shows what there is") from None


async def _list(container: FinancialContainer, args: argparse.Namespace) -> int:
    found_groups = await container.group_dead_letters()()
    groups, more_groups = found_groups[:MAX_GROUPS], len(found_groups[MAX_GROUPS:])
    matching = DeadLetterFilter(None if args.state == "all" else args.state, args.group, args.about)
    found = [] if args.groups else await container.list_dead_letters()(matching, args.limit + 1, args.after)
    shown = found[: args.limit]
    after = shown[-1].position if len(found) > len(shown) else None
    if args.json:
        write_json(
            LetterList(
                [group_response(group) for group in groups],
                more_groups,
                [dead_letter_response(letter) for letter in shown],
                after,
            )
        )
        return 0
    if args.groups or (args.group is None and args.about is None):
        printed.show_groups(groups, more_groups)
    if not args.groups:
        printed.show_letters(shown, after)
    return 0


async def _show(container: FinancialContainer, args: argparse.Namespace) -> int:
    letter = await container.find_dead_letter()(args.position)
    if args.json:
        write_json(dead_letter_details(letter))
    else:
        printed.show_letter(letter)
    return 0


async def _replay(container: FinancialContainer, args: argparse.Namespace) -> int:
    outcomes = container.replay_dead_letters()(_choice(args), _name(args), dry_run=args.dry_run)
    return await _report(container, args, outcomes)


async def _discard(container: FinancialContainer, args: argparse.Namespace) -> int:
    outcomes = container.discard_dead_letters()(_choice(args), args.reason, _name(args), dry_run=args.dry_run)
    return await _report(container, args, outcomes)


def _choice(args: argparse.Namespace) -> DeadLetterSelection:
    return DeadLetterSelection(position=args.position, group=args.group)


def _name(args: argparse.Namespace) -> str:
    try:
        name = str(args.by or getpass.getuser())
    except (KeyError, OSError, ImportError):  # which one, depends on the version of Python
        name = ""
    if not (name and is_text(name)):
        raise Misconfigured("the login does not say who you are: name yourself with --by")
    return name


async def _report(
    container: FinancialContainer, args: argparse.Namespace, outcomes: AsyncIterator[Outcome]
) -> int:
    counts: Counter[str] = Counter()
    several = args.position is None
    total = await container.group_dead_letters().waiting(args.group) if several else 1
    with printed.progress(total) if several else nullcontext(lambda: None) as advance:
        async for outcome in outcomes:
            counts[outcome.outcome] += 1
            if args.json:
                write_json(outcome_response(outcome))
            else:
                printed.show_outcome(outcome)
            advance()
    if not args.json:
        printed.show_summary(counts, dry_run=args.dry_run)
    return EXIT_SOME_FAILED if counts["failed again"] else 0
