"""`clinic dead-letters`: what could not be charged, for the person who mends it; beside the running service."""

import argparse
import getpass
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import msgspec
import uvloop
from msgspec import Struct
from msgspec.structs import replace

from clinic.domain.errors import Misconfigured, NotFound
from clinic.domain.financial.dead_letters import Chosen, Outcome
from clinic.domain.messaging.dead_letters import WantedLetters
from clinic.entrypoints.cli import dead_letters_view as printed
from clinic.entrypoints.cli.operator_session import visiting
from clinic.entrypoints.containers import FinancialContainer
from clinic.entrypoints.dead_letter_schemas import ShownGroup, ShownLetter, shown_group, shown_letter, shown_outcome, whole_letter
from clinic.entrypoints.settings import Settings
from clinic.entrypoints.telemetry import configure_logging

SOME_FAILED = 3
USUAL_LIMIT = 20
MOST_LETTERS = 100
MOST_GROUPS = 100

Action = Callable[[FinancialContainer, argparse.Namespace], Awaitable[int]]


class LetterList(Struct, frozen=True):
    """What `list --json` writes: the groups, and the wanted letters; give `next` to --after for more, unless it is null.

    The groups are the 100 of which the most wait; `more_groups` counts the others.
    """

    groups: list[ShownGroup]
    more_groups: int
    items: list[ShownLetter]
    next: str | None


def add_to(commands: Any) -> None:
    """Add `dead-letters` to the commands."""
    about = "What arrived and could not be charged is kept, with its reason, until a person replays or discards it; and after that, too."
    parser = commands.add_parser("dead-letters", help="list, show, replay or discard what could not be charged", description=about)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_list(actions)
    _add_show(actions)
    _add_replay(actions)
    _add_discard(actions)


def _add_list(actions: Any) -> None:
    parser = _action(actions, "list", "list those that wait, and the groups of all", _list)
    parser.add_argument(
        "--state", choices=["waiting", "replayed", "discarded", "all"], default="waiting", help="instead of those that wait"
    )
    parser.add_argument("--group", help="only this group: letters with the same reason but for ids, numbers and dates")
    parser.add_argument("--about", metavar="ID", help="only those about this appointment")
    parser.add_argument("--limit", type=_number, default=USUAL_LIMIT, metavar="N", help=f"so many, {MOST_LETTERS} at most ({USUAL_LIMIT})")
    parser.add_argument("--after", default="", metavar="POSITION", help="only those behind this position")
    parser.add_argument("--groups", action="store_true", help="only the groups")


def _add_show(actions: Any) -> None:
    parser = _action(actions, "show", "show one: the message, the reason, and who did what with it", _show)
    parser.add_argument("position", metavar="POSITION")


def _add_replay(actions: Any) -> None:
    about = f"Charge what they tell, as if they had just arrived. The exit code is {SOME_FAILED} when some fail again."
    parser = _action(actions, "replay", "charge what they tell, once its cause is mended", _replay, about)
    _add_choice(parser)


def _add_discard(actions: Any) -> None:
    about = "Note that they are not to be charged, who says so and why. They are kept all the same, and can be replayed by position."
    parser = _action(actions, "discard", "note that they are not to be charged, and why", _discard, about)
    _add_choice(parser)
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why")


def _action(actions: Any, name: str, summary: str, action: Action, about: str | None = None) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=summary, description=about or f"{summary[0].upper()}{summary[1:]}.")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.set_defaults(command=lambda settings, chosen: _run(settings, chosen, action))
    return parser


def _add_choice(parser: argparse.ArgumentParser) -> None:
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("position", nargs="?", metavar="POSITION", help="this one, whatever its state")
    choice.add_argument("--group", help="those of this group that wait")
    choice.add_argument("--all", action="store_true", help="all that wait")
    parser.add_argument("--by", metavar="NAME", help="who does it (the login name)")
    parser.add_argument("--dry-run", action="store_true", help="say what would come of it, and change nothing")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < len(str(MOST_LETTERS * 10)) and 1 <= int(text) <= MOST_LETTERS):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MOST_LETTERS}: --after goes on behind a list's end")
    return int(text)


def _run(settings: Settings, chosen: argparse.Namespace, action: Action) -> int:
    if sys.stderr.isatty():
        configure_logging(replace(settings, log_level="error"))  # what is noticed is what is printed
    return uvloop.run(_beside_the_service(FinancialContainer(settings=settings), chosen, action))


async def _beside_the_service(container: FinancialContainer, chosen: argparse.Namespace, action: Action) -> int:
    async with visiting(container):
        try:
            return await action(container, chosen)
        except NotFound as error:
            raise NotFound(f"{error}: `clinic dead-letters list --state all` shows what there is") from None


async def _list(container: FinancialContainer, chosen: argparse.Namespace) -> int:
    found_groups = await container.group_dead_letters()()
    groups, more_groups = found_groups[:MOST_GROUPS], len(found_groups[MOST_GROUPS:])
    wanted = WantedLetters(None if chosen.state == "all" else chosen.state, chosen.group, chosen.about)
    found = [] if chosen.groups else await container.list_dead_letters()(wanted, chosen.limit + 1, chosen.after)
    shown = found[: chosen.limit]
    after = shown[-1].position if len(found) > len(shown) else None
    if chosen.json:
        _write_json(LetterList([shown_group(each) for each in groups], more_groups, [shown_letter(each) for each in shown], after))
        return 0
    if chosen.groups or (chosen.group is None and chosen.about is None):
        printed.show_groups(groups, more_groups)
    if not chosen.groups:
        printed.show_letters(shown, after)
    return 0


async def _show(container: FinancialContainer, chosen: argparse.Namespace) -> int:
    letter = await container.find_dead_letter()(chosen.position)
    if chosen.json:
        _write_json(whole_letter(letter))
    else:
        printed.show_letter(letter)
    return 0


async def _replay(container: FinancialContainer, chosen: argparse.Namespace) -> int:
    outcomes = container.replay_dead_letters()(_choice(chosen), _name(chosen), dry_run=chosen.dry_run)
    return await _tell(container, chosen, outcomes)


async def _discard(container: FinancialContainer, chosen: argparse.Namespace) -> int:
    outcomes = container.discard_dead_letters()(_choice(chosen), chosen.reason, _name(chosen), dry_run=chosen.dry_run)
    return await _tell(container, chosen, outcomes)


def _choice(chosen: argparse.Namespace) -> Chosen:
    return Chosen(position=chosen.position, group=chosen.group)


def _name(chosen: argparse.Namespace) -> str:
    try:
        return str(chosen.by or getpass.getuser())
    except (KeyError, OSError, ImportError):  # which one, depends on the version of Python
        raise Misconfigured("who you are cannot be told from the login: name yourself with --by") from None


async def _tell(container: FinancialContainer, chosen: argparse.Namespace, outcomes: AsyncIterator[Outcome]) -> int:
    counts: Counter[str] = Counter()
    several = chosen.position is None
    total = await container.group_dead_letters().waiting(chosen.group) if several else 1
    with printed.progress(total) if several else nullcontext(lambda: None) as advance:
        async for outcome in outcomes:
            counts[outcome.what] += 1
            if chosen.json:
                _write_json(shown_outcome(outcome))
            else:
                printed.show_outcome(outcome)
            advance()
    if not chosen.json:
        printed.show_summary(counts, dry_run=chosen.dry_run)
    return SOME_FAILED if counts["failed again"] else 0


def _write_json(shape: Struct) -> None:
    sys.stdout.write(msgspec.json.encode(shape).decode() + "\n")
