"""Where is my charge? A search, and one appointment's way from its start to its charge."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect, Template
from msgspec import Struct

from clinic.domain.errors import NotFound
from clinic.domain.reconciliation.tracing import IN_WHOLE_SECONDS, Traced, TracedStep, WaitsFor, joined
from clinic.domain.tracing import Trace
from clinic.entrypoints.console.charts import LEAST, Scale
from clinic.entrypoints.console.client import Away, Declined, Page, Service, Services, SignedOut, or_away
from clinic.entrypoints.console.languages import marked
from clinic.entrypoints.console.shapes import Appointment
from clinic.entrypoints.console.view import MAX_TEXT, View, address

STEPS: Final[Mapping[str, str]] = {
    "started": marked("started"),
    "finished": marked("finished"),
    "saved": marked("event saved"),
    "published": marked("event published"),
    "received": marked("event received"),
    "charged": marked("charged"),
    "dead-lettered": marked("dead-lettered"),
    "replayed": marked("replayed"),
    "failed again": marked("failed again"),
    "discarded": marked("discarded"),
}
WAITS: Final[Mapping[WaitsFor, str]] = {
    "to be finished": marked("The patient is in the room: the appointment waits to be finished."),
    "to be published": marked("It is finished: its event waits to be published."),
    "to be received": marked("Its event is published: it waits to be received by the financial service."),
    "a person": marked("It is not charged: it waits for a person."),
    "nothing": marked("It is not charged, and waits for nothing."),
    "unknown": marked("What it waits for is not known now."),
}
AGAIN: Final[Mapping[WaitsFor, int]] = {
    "to be finished": 2,
    "to be published": 1,
    "to be received": 1,
    "a person": 2,
    "unknown": 2,
}
"""Seconds after which the page asks again; `nothing` has come to its end."""
AWAY_AGAIN: Final = 2
UNKNOWN: Final = marked(
    "Whether its event was published again is not known: the service did not answer. Do it again; it is "
    "charged once, however often you do."
)


class Wait(Struct, frozen=True):
    """A step with the bar of the wait before it. `less`: the wait is shorter than so many seconds."""

    step: TracedStep
    name: str
    share: float
    less: float


@get("/where")
async def where(
    view: NamedDependency[View], services: NamedDependency[Services], q: FromQuery[str] = ""
) -> Template | Redirect:
    """To the page of whatever has this id or position."""
    wanted = q.strip()[:MAX_TEXT]
    if "/" in wanted:
        return view.back(f"/letters/at/{quote(wanted)}")
    try:
        its_id = UUID(wanted.lower())
    except ValueError:
        return view.page("where", status=422 if wanted else 200, wanted=wanted, is_id=False)
    path = await _page_of(services, its_id)
    return view.back(path) if path else view.page("where", status=404, wanted=wanted, is_id=True)


async def _page_of(services: Services, its_id: UUID) -> str | None:
    answers = await _answers(services, its_id)
    if any(isinstance(answer, Trace) for answer in answers):
        return f"/appointments/{its_id}"
    away = [answer for answer in answers if isinstance(answer, Away)]
    for field in ("physician_id", "patient_id"):
        query = {field: str(its_id), "limit": 1}
        listed = await or_away(away, services.appointment.get(Page[Appointment], "/", query))
        if listed and listed.items:
            return address("/", **{field: its_id})
    if away:
        raise away[0]
    return None


@get("/appointments/{appointment_id:uuid}")
async def way(
    view: NamedDependency[View],
    services: NamedDependency[Services],
    appointment_id: FromPath[UUID],
    republished: FromQuery[bool] = False,
) -> Template:
    """Each step and wait, what it waits for now, and what can be done about it."""
    return await _way(view, services, appointment_id, republished=republished)


async def _way(
    view: View,
    services: Services,
    appointment_id: UUID,
    status: int = HTTPStatus.OK,
    problem: str = "",
    *,
    republished: bool = False,
) -> Template:
    away: list[Away] = []
    found, its = await asyncio.gather(
        or_away(away, traced(services, appointment_id)), _its(services, appointment_id, view)
    )
    return view.page(
        "way" if view.is_part else "appointment",
        status=HTTPStatus.SERVICE_UNAVAILABLE if away else status,
        id=appointment_id,
        its=its,
        away=away,
        problem=problem,
        republished=republished,
        **(_told(found) if found else {"traced": None, "again": AWAY_AGAIN}),
    )


def _told(found: Traced) -> Mapping[str, Any]:
    last = {step.event: step for step in found.steps}
    return {
        "traced": found,
        "waits": [_wait(step) for step in found.steps],
        "since": _since(found),
        "sentence": WAITS[found.waits_for],
        "charge": last.get("charged"),
        "letter": last.get("dead-lettered"),
        "is_finished": "finished" in last or "published" in last,
        "again": AGAIN.get(found.waits_for),
        "ticks": Scale().ticks,
    }


@post("/appointments/{appointment_id:uuid}/republish")
async def republish(
    view: NamedDependency[View], services: NamedDependency[Services], appointment_id: FromPath[UUID]
) -> Template | Redirect:
    """Its event once more. Safe at any time: what is charged stays as it is."""
    path = f"/appointments/{appointment_id}"
    try:
        await services.appointment.post(msgspec.Raw, f"/{appointment_id}/republish/", token=view.token)
    except SignedOut:
        return view.back("/sign-in", back=path)
    except Declined as error:
        return await _way(view, services, appointment_id, HTTPStatus.CONFLICT, str(error))
    except Away:
        return await _way(view, services, appointment_id, HTTPStatus.SERVICE_UNAVAILABLE, UNKNOWN)
    return view.back(path, republished=True)


async def _its(services: Services, appointment_id: UUID, view: View) -> Appointment | None:
    """Who it was; None for a part, which does not show it, and where nobody can say."""
    if view.is_part:
        return None
    try:
        return await services.appointment.get(Appointment, f"/{appointment_id}/")
    except (Away, NotFound):
        return None


async def traced(services: Services, appointment_id: UUID) -> Traced:
    answers = await _answers(services, appointment_id)
    if not any(isinstance(answer, Trace) for answer in answers):
        for answer in answers:
            if isinstance(answer, Away):
                raise answer
    return joined(appointment_id, *answers)


async def _answers(
    services: Services, appointment_id: UUID
) -> tuple[Trace | Away | None, Trace | Away | None]:
    return await asyncio.gather(
        trace(services.appointment, appointment_id), trace(services.financial, appointment_id)
    )


async def trace(service: Service, appointment_id: UUID) -> Trace | Away | None:
    """What it knows; None where it knows nothing."""
    try:
        return await service.get(Trace, f"/{appointment_id}/trace/")
    except NotFound:
        return None
    except Away as error:
        return error


def _wait(step: TracedStep) -> Wait:
    less = 1.0 if step.event in {*IN_WHOLE_SECONDS, "saved"} else LEAST
    return Wait(step, STEPS[step.event], Scale()(step.waited_seconds or 0.0), less)


def _since(found: Traced) -> tuple[float, float] | None:
    """For how many seconds it waits now, and the bar; None where it waits for nothing."""
    if found.waits_for in {"nothing", "unknown"}:
        return None
    seconds = max(0.0, (datetime.now(UTC) - found.steps[-1].at).total_seconds())
    return seconds, Scale()(seconds)


ROUTES: Final = [where, way, republish]
