"""Where is my charge? A search, and one appointment's way from its start to its charge."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect, Template

from clinic.domain.errors import NotFound
from clinic.domain.reconciliation.tracing import Traced, WaitsFor, joined
from clinic.domain.tracing import Trace
from clinic.entrypoints.console.charts import Scale
from clinic.entrypoints.console.client import Away, Page, Service, Services, SignedOut, or_away
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
    republished: FromQuery[str] = "",
) -> Template:
    """Each step and wait, what it waits for now, and what can be done about it."""
    away: list[Away] = []
    found, its = await asyncio.gather(
        or_away(away, traced(services, appointment_id)), _its(view, services, appointment_id)
    )
    return view.page(
        "way" if view.is_part else "appointment",
        status=503 if away else 200,
        id=appointment_id,
        its=its,
        away=away,
        traced=found,
        last={step.event: step for step in found.steps} if found else {},
        since=_since(found) if found else None,
        republished=republished,
        scale=Scale(),
        names=STEPS,
        sentences=WAITS,
    )


@get("/appointments/{appointment_id:uuid}/republish")
async def ask_to_republish(view: NamedDependency[View], appointment_id: FromPath[UUID]) -> Template:
    """The one question before its event is published again."""
    if view.operator is None:
        raise SignedOut
    return view.page("republish", id=appointment_id)


@post("/appointments/{appointment_id:uuid}/republish")
async def republish(
    view: NamedDependency[View], services: NamedDependency[Services], appointment_id: FromPath[UUID]
) -> Redirect:
    """Its event once more. Safe at any time: what is charged stays as it is."""
    path, republished = f"/appointments/{appointment_id}", "yes"
    try:
        await services.appointment.post(msgspec.Raw, f"/{appointment_id}/republish/", token=view.token)
    except SignedOut:
        return view.back("/sign-in", back=path)
    except Away:
        republished = "unknown"
    return view.back(path, republished=republished)


async def _its(view: View, services: Services, appointment_id: UUID) -> Appointment | None:
    """Who it was; None for a part, which does not show it, and where nobody can say."""
    if not view.is_part:
        with suppress(Away, NotFound):
            return await services.appointment.get(Appointment, f"/{appointment_id}/")
    return None


async def traced(services: Services, appointment_id: UUID) -> Traced:
    answers = await _answers(services, appointment_id)
    away = [answer for answer in answers if isinstance(answer, Away)]
    if away and not any(isinstance(answer, Trace) for answer in answers):
        raise away[0]
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


def _since(found: Traced) -> float | None:
    """For how many seconds it waits now; None where it waits for nothing."""
    if found.waits_for in {"nothing", "unknown"}:
        return None
    return max(0.0, (datetime.now(UTC) - found.steps[-1].at).total_seconds())


ROUTES: Final = [where, way, ask_to_republish, republish]
