"""Dead letters: by group and one by one; replayed or discarded after a preview, a batch a request."""

from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import quote

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Template
from msgspec import Struct
from msgspec.structs import replace

from clinic.domain.errors import NotFound, Refused
from clinic.entrypoints.console.client import Away, Declined, Page, Service, Services, SignedOut
from clinic.entrypoints.console.languages import marked
from clinic.entrypoints.console.view import MAX_TEXT, Operator, View
from clinic.entrypoints.dead_letter_schemas import (
    DeadLetterDetails,
    DeadLetterResponse,
    GroupResponse,
    OutcomeResponse,
)

PAGE_SIZE: Final = 50
BATCH_SIZE: Final = 100
"""Letters a request: the financial service's batch."""
BATCHES_SHOWN: Final = 10
"""Of a run, so that a page stays small however many letters there are; all of them are counted."""
MAX_REASON: Final = 2000
MAX_DIGITS: Final = 10
ALL: Final = "all"
"""As a state of the list: where none is named, it shows what waits."""
LetterPage = Page[DeadLetterResponse]
InState = Annotated[str, QueryParameter(name="state")]
STATES: Final = {
    "waiting": marked("waiting"),
    "replayed": marked("replayed"),
    "discarded": marked("discarded"),
}
BECAME: Final = {
    "charged": marked("charged"),
    "already charged": marked("already charged"),
    "differs from its charge": marked("differs from its charge"),
    "nothing to charge": marked("nothing to charge"),
    "failed again": marked("failed again"),
    "discarded": marked("discarded"),
    "handled already": marked("handled already"),
}
WOULD_BECOME: Final = BECAME | {
    "charged": marked("would be charged"),
    "failed again": marked("fails again"),
    "discarded": marked("would be discarded"),
}
NO_REASON: Final = marked("Say why: the reason is kept with each letter.")
UNKNOWN: Final = marked(
    "What became of these letters is not known: the service did not answer. Continue: what was handled is "
    "not handled again, and nothing is charged twice."
)


class Groups(Struct, frozen=True):
    """`more` counts the groups that are not listed."""

    items: list[GroupResponse]
    more: int


class Handled(Struct, frozen=True):
    """What became of a batch, or would; `remaining` letters of the selection wait."""

    items: list[OutcomeResponse]
    next: str | None
    remaining: int


class Batch(Struct, frozen=True, kw_only=True):
    """What became of some letters, or would, and where to continue; `problem`: why not of all of them."""

    items: Sequence[OutcomeResponse] = ()
    positions: Sequence[str] = ()
    after: str = ""
    is_last: bool = True
    remaining: int = 0
    problem: str = ""


class Job(Struct, frozen=True, kw_only=True):
    """What a form asks for: the letters at `positions`, or else the waiting ones, of `group` or all of them.

    `after` and `batch` say how far it has come, `counts` what became of those before, by outcome. It ends at
    `most`, the number that the preview named: what arrives meanwhile was not looked at.
    """

    action: str
    is_selected: bool
    positions: Sequence[str]
    group: str
    reason: str
    is_preview: bool
    is_stopped: bool
    after: str
    batch: int
    most: int
    counts: Mapping[str, int]

    def fields(self, **changes: Any) -> list[tuple[str, str]]:
        """It as a form, for what comes next."""
        its = replace(self, **changes)
        return [
            ("do", f"{its.action} {'selected' if its.is_selected else 'matching'}"),
            *(("position", position) for position in its.positions),
            *((name, str(getattr(its, name))) for name in ("group", "reason", "after", "batch", "most")),
            ("preview", "yes" if its.is_preview else ""),
            *((outcome, str(count)) for outcome, count in its.counts.items()),
        ]


@get("/letters/")
async def letters(
    view: NamedDependency[View],
    services: NamedDependency[Services],
    in_state: InState = "waiting",
    group: FromQuery[str] = "",
    about: FromQuery[str] = "",
    after: FromQuery[str] = "",
) -> Template:
    """The groups, and the letters of the filter that stands in the address."""
    filters = {"state": in_state, "group": group, "about": about}
    query = {**as_asked(filters), "after": after, "limit": PAGE_SIZE}
    groups = await services.financial.get(Groups, "/dead-letters/groups/", token=view.token)
    listed = await services.financial.get(LetterPage, "/dead-letters/", query, token=view.token)
    waiting = sum(each.waiting for each in groups.items if group in {"", each.group})
    return view.page(
        "letters",
        groups=groups,
        letters=listed,
        filters=filters,
        after=after,
        states=STATES,
        # The service handles at once what waits, of a group or all of it: of no other filter.
        matching=waiting if in_state in {"waiting", ALL} and not about else 0,
    )


def as_asked(filters: Mapping[str, str]) -> Mapping[str, str]:
    """The filters of the list as the service takes them."""
    return {name: value for name, value in filters.items() if value != ALL}


@get("/letters/at/{position:path}")
async def letter(
    view: NamedDependency[View], services: NamedDependency[Services], position: FromPath[str]
) -> Template:
    """The message, why it could not be charged, and what people did with it."""
    its = str(position).strip("/")
    if "/" not in its:  # no transport's position; a path beside the letters, perhaps
        raise NotFound(f"there is no dead letter at {its}")
    path = f"/dead-letters/{quote(its)}"
    found = await services.financial.get(DeadLetterDetails, path, token=view.token)
    return view.page("letter", letter=found, states=STATES, events=BECAME | STATES)


@post("/letters/handle", status_code=HTTPStatus.OK)
async def handle(view: NamedDependency[View], services: NamedDependency[Services]) -> Template:
    """Preview or do the next batch: the page asks for the one after it, until it is stopped."""
    job = await _job(view)
    if view.operator is None:
        raise SignedOut
    if job.is_selected and not job.positions:
        raise Declined(str(marked("No letter is selected.")))
    lacks_reason = job.action == "discard" and not job.reason and not job.is_preview
    job = replace(job, is_preview=job.is_preview or lacks_reason)
    batch = await _next_batch(services.financial, job, view.operator)
    counts = Counter(job.counts) + Counter(each.outcome for each in batch.items)
    place = {"positions": batch.positions, "after": batch.after, "batch": job.batch + 1, "counts": counts}
    part = "handling-batch" if job.batch else "handling-run"
    return view.page(
        part if view.is_part else "handling",
        status=422 if lacks_reason else 503 if batch.problem else 200,
        job=job,
        done=batch,
        counts=counts,
        became=WOULD_BECOME if job.is_preview else BECAME,
        problem=NO_REASON if lacks_reason else batch.problem,
        confirm=job.fields(is_preview=False, after="", batch=0, most=batch.remaining, counts={}),
        next=None if batch.is_last or 0 < job.most <= counts.total() else job.fields(**place),
        dropped=job.batch - BATCHES_SHOWN,
    )


async def _job(view: View) -> Job:
    form = await view.request.form()

    def field(name: str, most: int = MAX_TEXT) -> str:
        return str(form.get(name, "")).strip()[:most]

    action, _, of = field("do").partition(" ")
    return Job(
        action="discard" if action == "discard" else "replay",
        is_selected=of != "matching",
        positions=[str(each) for each in form.getall("position", [])][:BATCH_SIZE],
        group=field("group"),
        reason=field("reason", MAX_REASON),
        is_preview=bool(field("preview")),
        is_stopped=bool(field("stop")),
        after=field("after", MAX_REASON),
        batch=_number(field("batch")),
        most=_number(field("most")),
        counts={outcome: _number(field(outcome)) for outcome in BECAME},
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < MAX_DIGITS else 0


async def _next_batch(financial: Service, job: Job, operator: Operator) -> Batch:
    place = Batch(positions=job.positions, after=job.after, is_last=False)
    if job.is_stopped:
        return place
    items: list[OutcomeResponse] = []
    try:
        if not job.is_selected:
            which = {"group": job.group} if job.group else {"all": True}
            found = await _handled(financial, job, operator, **which, after=job.after or None)
            is_last, after = found.next is None, found.next or ""
            return Batch(items=found.items, after=after, is_last=is_last, remaining=found.remaining)
        for position in job.positions:
            items += (await _handled(financial, job, operator, position=position)).items
    except Away:
        if job.is_preview:
            raise  # nothing has changed, and nothing goes on
        return replace(place, items=items, positions=job.positions[len(items) :], problem=UNKNOWN)
    except Refused as error:
        if not items:
            raise
        return replace(place, items=items, positions=job.positions[len(items) + 1 :], problem=str(error))
    return Batch(items=items)


async def _handled(financial: Service, job: Job, operator: Operator, **which: object) -> Handled:
    body = {"by": operator.by, "dry_run": job.is_preview, **which}
    if job.action == "discard":
        body["reason"] = job.reason or "-"  # a preview changes nothing, and needs none
    return await financial.post(Handled, f"/dead-letters/{job.action}/", body, token=operator.token)


ROUTES: Final = [letters, letter, handle]
