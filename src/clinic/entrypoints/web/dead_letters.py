"""Dead letters over HTTP, for clients with the operator's token. If none is set, there are no such paths."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Any, TypeVar, get_args

import msgspec
from litestar import Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.enums import RequestEncodingType
from litestar.params import BodyKwarg, FromPath, FromQuery, QueryParameter
from msgspec import Meta, Struct

from clinic.domain.financial.dead_letters import (
    DeadLetterSelection,
    DiscardDeadLetters,
    FindDeadLetter,
    GroupDeadLetters,
    ListDeadLetters,
    ListHistory,
    Outcome,
    ReplayDeadLetters,
)
from clinic.domain.messaging.dead_letters import DeadLetterFilter, HistoryCursor, LetterState
from clinic.entrypoints.dead_letter_schemas import (
    Count,
    DeadLetterDetails,
    DeadLetterResponse,
    GroupResponse,
    OutcomeResponse,
    RecordedEntryResponse,
    dead_letter_details,
    dead_letter_response,
    group_response,
    outcome_response,
    recorded_entry,
)
from clinic.entrypoints.web import parameters
from clinic.entrypoints.web.authorization import SECURITY, only_with
from clinic.entrypoints.web.pages import page
from clinic.entrypoints.web.problems import FieldProblem, Invalid, documented, json_body

BATCH_SIZE = 100
"""The most letters that one request handles."""
MAX_GROUPS = 100
"""The most groups that are shown."""

STATES = get_args(LetterState)
InState = Annotated[
    str | None, QueryParameter(name="state", enum=STATES, description="Only those in this state.")
]
"""Under another name inside: `state` is Litestar's own there, and an error would name the wrong field."""
VISIBLE = r"[^\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]"
"""A character that is no space and no control: `\\S` is not the same in Python and in JSON Schema."""
Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=200,
        pattern=VISIBLE,
        description="Who does it: kept with the letter.",
        examples=["anna"],
    ),
]
Words = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=2000,
        pattern=VISIBLE,
        description="Why: kept with the letter.",
        examples=["sent by a test"],
    ),
]
OnePosition = Annotated[
    str | None, Meta(description="This letter, whatever its state, like clinic.appointments/0/17.")
]
OneGroup = Annotated[str | None, Meta(description="Those of this group that wait, like 9c1185a5.")]
All = Annotated[bool, Meta(description="All that wait.")]
DryRun = Annotated[bool, Meta(description="Say what would happen, and change nothing.")]
After = Annotated[
    str | None, Meta(description="The `next` of the previous answer: continue behind it.", examples=[None])
]


CHOICES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "position": ({"type": "string"}, {"type": "null"}),
    "group": ({"type": "string"}, {"type": "null"}),
    "all": ({"const": True}, {"const": False}),
}
"""What chooses letters, in JSON Schema: how it is given, and how it is not."""
ONE_CHOICE = [
    {"required": [given], "properties": {name: each[name != given] for name, each in CHOICES.items()}}
    for given in CHOICES
]
"""What `Choice.__post_init__` checks."""
T = TypeVar("T")
ChoiceBody = Annotated[T, BodyKwarg(media_type=RequestEncodingType.JSON, schema_extra={"one_of": ONE_CHOICE})]


class Choice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters, who says so, and how far: exactly one of `position`, `group` and `all`."""

    by: Name
    position: OnePosition = None
    group: OneGroup = None
    all: All = False
    dry_run: DryRun = False
    after: After = None

    def __post_init__(self) -> None:
        if (self.position is not None) + (self.group is not None) + self.all != 1:
            raise ValueError('give exactly one of position, group, and "all": true')


class Replay(Choice, frozen=True):
    """Which dead letters to charge: exactly one of `position`, `group` and `all`."""


class Discard(Choice, frozen=True, kw_only=True):
    """Which dead letters are not to be charged: exactly one of `position`, `group` and `all`."""

    reason: Words


class LetterPage(Struct, frozen=True):
    """Some dead letters, by position."""

    items: list[DeadLetterResponse]
    next: parameters.Next


class HistoryPage(Struct, frozen=True):
    """Some of what people did with dead letters, the newest first."""

    items: list[RecordedEntryResponse]
    next: parameters.Next


class LetterGroups(Struct, frozen=True):
    """Groups of dead letters, those with the most waiting letters first; `more` counts those not shown."""

    items: list[GroupResponse]
    more: Count


class Handled(Struct, frozen=True):
    """What became of each letter. `remaining` counts the selected letters that still wait."""

    items: list[OutcomeResponse]
    next: Annotated[
        str | None,
        Meta(
            description="Give it as `after` to continue with the rest; null if all were handled.",
            examples=[None],
        ),
    ]
    remaining: Count
    dry_run: bool


PROBLEMS = documented(HTTPStatus.UNAUTHORIZED, HTTPStatus.SERVICE_UNAVAILABLE)
OF_A_QUERY = PROBLEMS | documented(HTTPStatus.BAD_REQUEST)
OF_ONE = PROBLEMS | documented(HTTPStatus.NOT_FOUND)
OF_A_BODY = OF_A_QUERY | documented(
    HTTPStatus.NOT_FOUND, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE
)


class Remaining:
    """Counts the selected letters that still wait."""

    def __init__(
        self,
        find_dead_letter: NamedDependency[FindDeadLetter],
        group_dead_letters: NamedDependency[GroupDeadLetters],
    ) -> None:
        self._find = find_dead_letter
        self._groups = group_dead_letters

    async def __call__(self, body: Choice) -> int:
        if body.position is not None:
            return int((await self._find(body.position)).state == "waiting")
        return await self._groups.waiting(body.group)


@get("/", summary="List dead letters", responses=OF_A_QUERY)
async def list_letters(
    list_dead_letters: NamedDependency[ListDeadLetters],
    limit: parameters.Limit = parameters.DEFAULT_LIMIT,
    after: FromQuery[str | None] = None,
    in_state: InState = None,
    group: FromQuery[str | None] = None,
    about: FromQuery[str | None] = None,
) -> LetterPage:
    """What arrived and could not be charged, by position, a page at a time."""
    matching = DeadLetterFilter(_state(in_state), group, about)
    found = await list_dead_letters(matching, limit + 1, parameters.place(after, str) or "")
    letters, more = page(found, limit, lambda letter: letter.position)
    return LetterPage([dead_letter_response(letter) for letter in letters], more)


@get("/groups/", summary="List the groups of dead letters", responses=PROBLEMS)
async def list_groups(group_dead_letters: NamedDependency[GroupDeadLetters]) -> LetterGroups:
    """Letters that were refused for the same kind of reason; the group with the most waiting comes first."""
    found = await group_dead_letters()
    return LetterGroups([group_response(group) for group in found[:MAX_GROUPS]], len(found[MAX_GROUPS:]))


@get("/history/", summary="List what people did with dead letters", responses=OF_A_QUERY)
async def list_entries(
    list_history: NamedDependency[ListHistory],
    limit: parameters.Limit = parameters.DEFAULT_LIMIT,
    after: FromQuery[str | None] = None,
) -> HistoryPage:
    """Who replayed or discarded which letter, when, and what came of it or why: the newest first."""
    found = await list_history(limit + 1, parameters.place(after, HistoryCursor))
    entries, more = page(found, limit, lambda recorded: recorded[0])
    return HistoryPage([recorded_entry(recorded) for recorded in entries], more)


@get("/{position:path}", summary="Show a dead letter", responses=OF_ONE)
async def find_letter(
    position: FromPath[str], find_dead_letter: NamedDependency[FindDeadLetter]
) -> DeadLetterDetails:
    """The message, cut if it is large, the reason, and what people did with it. A position has slashes."""
    return dead_letter_details(await find_dead_letter(str(position).removeprefix("/")))


def _post(path: str, body: type[Choice], summary: str) -> post:
    return post(
        path,
        status_code=HTTPStatus.OK,
        before_request=json_body(body),
        summary=summary,
        responses=OF_A_BODY,
    )


@_post("/replay/", Replay, "Charge the appointments in dead letters")
async def replay(
    data: ChoiceBody[Replay],
    replay_dead_letters: NamedDependency[ReplayDeadLetters],
    remaining: NamedDependency[Remaining],
) -> Handled:
    """As if they had just arrived: each is charged at most once. Up to 100 a request."""
    outcomes = replay_dead_letters(_selection(data), data.by, dry_run=data.dry_run)
    return await _handled(data, outcomes, remaining)


@_post("/discard/", Discard, "Note that dead letters are not to be charged")
async def discard(
    data: ChoiceBody[Discard],
    discard_dead_letters: NamedDependency[DiscardDeadLetters],
    remaining: NamedDependency[Remaining],
) -> Handled:
    """They are kept with the reason and who gave it, and can be replayed by position. Up to 100 a request."""
    outcomes = discard_dead_letters(_selection(data), data.reason, data.by, dry_run=data.dry_run)
    return await _handled(data, outcomes, remaining)


def router(token: str) -> Router:
    """All of this under /dead-letters/, for clients with this token."""
    return Router(
        "/dead-letters",
        route_handlers=[list_letters, list_groups, list_entries, find_letter, replay, discard],
        dependencies={"remaining": Provide(Remaining, sync_to_thread=False)},
        guards=[only_with(token)],
        security=SECURITY,
        tags=["dead letters"],
    )


def _state(text: str | None) -> LetterState | None:
    try:
        state: LetterState | None = msgspec.convert(text, LetterState | None)
    except msgspec.ValidationError:
        raise Invalid(
            [FieldProblem("state", f"is not a state of a dead letter: give one of {', '.join(STATES)}")]
        ) from None
    return state


def _selection(body: Choice) -> DeadLetterSelection:
    return DeadLetterSelection(
        position=body.position,
        group=body.group,
        limit=BATCH_SIZE,
        after=parameters.place(body.after, str) or "",
    )


async def _handled(body: Choice, outcomes: AsyncIterator[Outcome], remaining: Remaining) -> Handled:
    items = [outcome_response(outcome) async for outcome in outcomes]
    more = parameters.cursor(items[-1].position) if len(items) == BATCH_SIZE else None
    return Handled(items, more, await remaining(body), body.dry_run)
