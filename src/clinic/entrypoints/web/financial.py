"""The financial service over HTTP."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, TypeVar
from uuid import UUID

from litestar import Litestar, Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from msgspec import Meta, Struct

from clinic.domain.errors import ClinicError, Unavailable
from clinic.domain.financial.model import Charge, ChargeCursor
from clinic.domain.financial.ports import ChargeFilter
from clinic.domain.financial.related_letters import is_own
from clinic.domain.financial.tracing import TraceCharge
from clinic.domain.financial.use_cases import FindCharge, ListCharges
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetterFilter
from clinic.domain.money import Money
from clinic.entrypoints import formats, metrics
from clinic.entrypoints.containers import FinancialContainer
from clinic.entrypoints.metrics import FinancialMetrics
from clinic.entrypoints.service import Lifecycle
from clinic.entrypoints.web import dead_letters, events, parameters
from clinic.entrypoints.web.app import Health, application, health
from clinic.entrypoints.web.pages import page
from clinic.entrypoints.web.problems import documented, respond
from clinic.entrypoints.web.traces import TraceResponse, get_trace, trace_response

T = TypeVar("T")

PAGE_SIZE, MAX_LETTERS = 20, 500
"""Waiting dead letters that a health check reads at once, and all in all."""


class ChargeResponse(Struct, frozen=True):
    """What an appointment costs."""

    appointment_id: Annotated[UUID, Meta(examples=["84ab6121-c4a8-4684-8cc2-b03024ec0f1d"])]
    total_price: Money


class ChargeDetails(Struct, frozen=True):
    """A charge and its explanation: the price per hour, the hours billed, the policy that counts them."""

    appointment_id: UUID
    total_price: Money
    price: Money
    hours: Annotated[
        float,
        Meta(
            description="Hours billed, shown to four decimals; the total is made of the exact ones.",
            examples=[2.0],
        ),
    ]
    pricing: Annotated[str, Meta(examples=["hours-begun"])]
    start_date: formats.Date
    end_date: formats.Date
    charged_at: formats.Date


class ChargePage(Struct, frozen=True):
    """Some charges, the newest first."""

    items: list[ChargeDetails]
    next: parameters.Next


@get(
    "/{appointment_id:uuid}/",
    tags=["charges"],
    summary="Show the charge of an appointment",
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def find(
    appointment_id: FromPath[UUID],
    find_charge: NamedDependency[FindCharge],
    lifecycle: NamedDependency[Lifecycle],
    request: Request[Any, Any, Any],
    prefer: parameters.Prefer = None,  # noqa: ARG001 — documents the header; a request may have several of them
) -> Response[ChargeResponse]:
    """404 while there is no charge. `Prefer: wait=5` waits up to 5 seconds for it."""
    wait = parameters.parse_wait(request.headers.getall("prefer", []))
    headers = {"Vary": "Prefer"} | ({} if wait is None else {"Preference-Applied": f"wait={wait}"})
    try:
        charge = (
            await lifecycle.unless_stopping(_while_connected(request, find_charge(appointment_id, wait)))
            if wait
            else await find_charge(appointment_id)
        )
    except ClinicError as error:
        return respond(request, error, headers)  # type: ignore[return-value]
    return Response(ChargeResponse(charge.appointment_id, charge.total), headers=headers)


async def _while_connected(request: Request[Any, Any, Any], work: Coroutine[Any, Any, T]) -> T:
    """The work's result. Cancels the work and raises `Unavailable` as soon as the client leaves.

    uvicorn reports a disconnect to the last request on a connection only: a client that pipelines others
    behind this one is noticed at its time-out.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Unavailable("the client left")
    finally:
        working.cancel()
        leaving.cancel()


async def _left(request: Request[Any, Any, Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@get(
    "/",
    tags=["charges"],
    summary="List charges",
    responses=documented(HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def list_all(
    list_charges: NamedDependency[ListCharges],
    limit: parameters.Limit = parameters.DEFAULT_LIMIT,
    after: FromQuery[str | None] = None,
    physician_id: FromQuery[UUID | None] = None,
    patient_id: FromQuery[UUID | None] = None,
    charged_from: parameters.From = None,
    charged_to: parameters.To = None,
) -> ChargePage:
    """The newest first, a page at a time."""
    matching = ChargeFilter(
        physician_id,
        patient_id,
        parameters.utc("charged_from", charged_from),
        parameters.utc("charged_to", charged_to),
    )
    found = await list_charges(matching, limit + 1, parameters.place(after, ChargeCursor))
    charges, more = page(found, limit, lambda charge: charge.cursor)
    return ChargePage([_details(charge) for charge in charges], more)


def _details(charge: Charge) -> ChargeDetails:
    return ChargeDetails(
        appointment_id=charge.appointment_id,
        total_price=charge.total,
        price=charge.price,
        hours=round(float(charge.hours), 4),
        pricing=charge.pricing,
        start_date=formats.date(charge.start),
        end_date=formats.date(charge.end),
        charged_at=formats.date(charge.charged_at),
    )


@get_trace("Show what arrived about an appointment and what became of it")
async def trace(appointment_id: FromPath[UUID], trace_charge: NamedDependency[TraceCharge]) -> TraceResponse:
    """From the publication of its event to its charge, with what could not be charged."""
    return trace_response(appointment_id, await trace_charge(appointment_id))


def create_app(container: FinancialContainer, lifecycle: Lifecycle) -> Litestar:
    """The service that this container makes. Its lifespan opens the store and runs the consumer."""
    token = container.settings().operator_token
    return application(
        title="Charges",
        description="Turns each finished appointment into exactly one charge. What it reads: "
        "[/events](/events).",
        routes=[find, list_all, trace, *([dead_letters.router(token)] if token else [])],
        events=events.received(container.channel()),
        dependencies={
            "lifecycle": lambda: lifecycle,
            "find_charge": container.find_charge,
            "list_charges": container.list_charges,
            "trace_charge": container.trace_charge,
            "list_dead_letters": container.list_dead_letters,
            "group_dead_letters": container.group_dead_letters,
            "find_dead_letter": container.find_dead_letter,
            "list_history": container.list_history,
            "replay_dead_letters": container.replay_dead_letters,
            "discard_dead_letters": container.discard_dead_letters,
        },
        ready=partial(_ready, container, lifecycle),
        telemetry=container.telemetry(),
        metrics=_metrics(container),
        tracing=container.tracing(),
        lifecycle=lifecycle,
        resources=container.resources,
        loop=lambda: container.consumer().run(),
    )


def _metrics(container: FinancialContainer) -> FinancialMetrics:
    asked, subscription = container.metrics(), container.measured_subscription
    asked.questions["lag"] = lambda: metrics.lag(container.lag(), subscription().held_seconds)
    asked.questions["dead letters"] = lambda: metrics.dead_letters(container.group_dead_letters())
    metrics.ask_disk(asked, container.watched_folder())
    return asked


async def _ready(container: FinancialContainer, lifecycle: Lifecycle) -> Health:
    return await health(
        container.charges().check(),
        lifecycle.check_alive,
        dead_letters=partial(_own_dead_letters, container),
        consumer=container.consumer().problem,
    )


async def _own_dead_letters(container: FinancialContainer) -> str | None:
    """Which finishes wait as dead letters, among the first `MAX_LETTERS` that wait."""
    own: list[DeadLetter] = []
    looked, after = 0, ""
    while found := await container.list_dead_letters()(DeadLetterFilter("waiting"), PAGE_SIZE, after):
        own += [letter for letter in found if is_own(letter)]
        looked, after = looked + len(found), found[-1].position
        if looked >= MAX_LETTERS:
            break
    more = "+" if looked >= MAX_LETTERS else ""
    if own:
        return f"finishes that are dead-lettered: {len(own)}{more}, among them of {own[0].about}"
    return f"too many to look for finishes among them: {looked}{more}" if more else None
