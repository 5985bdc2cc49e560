"""The appointment service over HTTP."""

from functools import partial
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from litestar import Litestar, Request, Response, Router, get, post
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta, Struct

from clinic.domain.appointment.model import Appointment
from clinic.domain.appointment.ports import AppointmentFilter
from clinic.domain.appointment.use_cases import (
    FindAppointment,
    FinishAppointment,
    ListAppointments,
    ListLateAppointments,
    RepublishFinished,
    StartAppointment,
    TraceAppointment,
)
from clinic.domain.money import Money
from clinic.entrypoints import formats, metrics
from clinic.entrypoints.containers import AppointmentContainer
from clinic.entrypoints.metrics import AppointmentMetrics
from clinic.entrypoints.service import Lifecycle
from clinic.entrypoints.web import events, parameters
from clinic.entrypoints.web.app import Health, application, health
from clinic.entrypoints.web.authorization import SECURITY, only_with
from clinic.entrypoints.web.pages import page
from clinic.entrypoints.web.problems import FieldProblem, Invalid, documented, json_body
from clinic.entrypoints.web.traces import TraceResponse, get_trace, trace_response

NOT_NIL = {"extra": {"not": {"const": str(UUID(int=0))}}}
"""In the words of Litestar's schemas: `json_body` refuses the nil UUID, which names nobody."""
PhysicianId = Annotated[
    UUID, Meta(examples=["8c9b1b0e-5d3f-4c39-9a53-0b9d3b1f8f10"], extra_json_schema=NOT_NIL)
]
PatientId = Annotated[
    UUID, Meta(examples=["2f1c7f3a-6b0c-4a57-8f6e-7f9f1d2b3c4d"], extra_json_schema=NOT_NIL)
]


class NewAppointment(Struct, frozen=True, forbid_unknown_fields=True):
    """Who sees whom."""

    physician_id: PhysicianId
    patient_id: PatientId


class AppointmentResponse(Struct, frozen=True):
    """An appointment: its price is per hour, its end null until it is finished."""

    id: Annotated[UUID, Meta(examples=["84ab6121-c4a8-4684-8cc2-b03024ec0f1d"])]
    start_date: formats.Date
    end_date: formats.Date | None
    physician_id: PhysicianId
    patient_id: PatientId
    price: Money


class AppointmentPage(Struct, frozen=True):
    """Some appointments, in the order of the list."""

    items: list[AppointmentResponse]
    next: parameters.Next


@post(
    "/",
    before_request=json_body(NewAppointment),
    tags=["appointments"],
    summary="Start an appointment",
    response_headers=[
        ResponseHeader(
            name="Location", description="The path of the new appointment.", documentation_only=True
        )
    ],
    responses=documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def start(
    data: JSONBody[NewAppointment],
    start_appointment: NamedDependency[StartAppointment],
    request: Request[Any, Any, Any],
    idempotency_key: parameters.IdempotencyKey = None,  # noqa: ARG001 — documents the header
) -> Response[AppointmentResponse]:
    """Start an appointment now, at the clinic's price per hour. After a 503 it may have started.

    With an `Idempotency-Key`, repeating the request is safe: it answers the appointment that the first one
    started. The same key with another body is refused (422).
    """
    key = parameters.parse_key(request.headers.getall("idempotency-key", []))
    appointment = await start_appointment(data.physician_id, data.patient_id, key)
    return Response(_response(appointment), headers={"Location": f"/{appointment.id}/"})


@post(
    "/{appointment_id:uuid}/",
    status_code=HTTPStatus.OK,
    tags=["appointments"],
    summary="Finish an appointment",
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def finish(
    appointment_id: FromPath[UUID], finish_appointment: NamedDependency[FinishAppointment]
) -> AppointmentResponse:
    """Finish an appointment now; it is charged exactly once. Finishing again is safe: the first end stays."""
    return _response(await finish_appointment(appointment_id))


@get(
    "/{appointment_id:uuid}/",
    tags=["appointments"],
    summary="Show an appointment",
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def find(
    appointment_id: FromPath[UUID], find_appointment: NamedDependency[FindAppointment]
) -> AppointmentResponse:
    return _response(await find_appointment(appointment_id))


@get(
    "/",
    tags=["appointments"],
    summary="List appointments",
    responses=documented(HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def list_all(
    list_appointments: NamedDependency[ListAppointments],
    list_late_appointments: NamedDependency[ListLateAppointments],
    limit: parameters.Limit = parameters.DEFAULT_LIMIT,
    after: FromQuery[str | None] = None,
    physician_id: FromQuery[UUID | None] = None,
    patient_id: FromQuery[UUID | None] = None,
    finished: FromQuery[bool | None] = None,
    started_before: parameters.StartedBefore = None,
    late: parameters.Late = None,
) -> AppointmentPage:
    """The newest first, a page at a time; with `late`, first what has waited longest."""
    if late is not None:
        if {physician_id, patient_id, finished, started_before} != {None}:
            raise Invalid([FieldProblem("late", "is a list of its own: give it with limit and after only")])
        return await _late(list_late_appointments, int(late), limit, after)
    if started_before is not None and finished is not False:  # no list may read all of history
        raise Invalid([FieldProblem("started_before", "is for what is open: give finished=false, too")])
    started = parameters.utc("started_before", started_before)
    matching = AppointmentFilter(physician_id, patient_id, finished, started)
    found = await list_appointments(matching, limit + 1, parameters.place(after, UUID))
    appointments, more = page(found, limit, lambda appointment: appointment.id)
    return AppointmentPage([_response(appointment) for appointment in appointments], more)


async def _late(
    list_late_appointments: ListLateAppointments, seconds: int, limit: int, after: str | None
) -> AppointmentPage:
    place = parameters.place(after, parameters.Place)
    found, more = page(await list_late_appointments(seconds, limit + 1, place), limit, lambda each: each[0])
    return AppointmentPage([_response(appointment) for _, appointment in found if appointment], more)


@get_trace("Show how far an appointment and its event have come")
async def trace(
    appointment_id: FromPath[UUID], trace_appointment: NamedDependency[TraceAppointment]
) -> TraceResponse:
    """From its start to the publication of its event; the financial service knows the rest."""
    return trace_response(appointment_id, await trace_appointment(appointment_id))


@post(
    "/{appointment_id:uuid}/republish/",
    status_code=HTTPStatus.ACCEPTED,
    tags=["operator"],
    summary="Publish the event of a finished appointment again",
    responses=documented(
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def republish(
    appointment_id: FromPath[UUID],
    republish_finished: NamedDependency[RepublishFinished],
    trace_appointment: NamedDependency[TraceAppointment],
) -> TraceResponse:
    """Safe at any time: what is charged stays as it is, and an event that still waits is left alone.

    An appointment that is not finished has no event yet: 409.
    """
    await republish_finished(appointment_id)
    return trace_response(appointment_id, await trace_appointment(appointment_id))


def _response(appointment: Appointment) -> AppointmentResponse:
    return AppointmentResponse(
        id=appointment.id,
        start_date=formats.date(appointment.start),
        end_date=None if appointment.end is None else formats.date(appointment.end),
        physician_id=appointment.physician_id,
        patient_id=appointment.patient_id,
        price=appointment.price,
    )


def create_app(container: AppointmentContainer, lifecycle: Lifecycle) -> Litestar:
    """The service that this container makes. Its lifespan opens the store and runs the relay."""
    token = container.settings().operator_token
    container.telemetry().count(
        "clinic_loads_saved",
        "Loads that a finish did without: the appointment was at hand.",
        lambda: container.at_hand().given,
    )
    return application(
        title="Appointments",
        description="Starts and finishes a clinic's appointments. What it tells others: [/events](/events).",
        routes=[start, finish, find, list_all, trace, *([_operated(token)] if token else [])],
        events=events.sent(container.channel()),
        dependencies={
            "start_appointment": container.start_appointment,
            "finish_appointment": container.finish_appointment,
            "find_appointment": container.find_appointment,
            "list_appointments": container.list_appointments,
            "list_late_appointments": container.list_late_appointments,
            "trace_appointment": container.trace_appointment,
            "republish_finished": container.republish_finished,
        },
        ready=partial(_ready, container, lifecycle),
        telemetry=container.telemetry(),
        metrics=_metrics(container),
        tracing=container.tracing(),
        lifecycle=lifecycle,
        resources=container.resources,
        loop=lambda: container.relay().run(),
    )


def _metrics(container: AppointmentContainer) -> AppointmentMetrics:
    asked = container.metrics()
    asked.questions["outbox"] = lambda: metrics.backlog(container.outbox(), container.clock())
    metrics.ask_disk(asked, container.watched_folder())
    return asked


def _operated(token: str) -> Router:
    return Router("/", route_handlers=[republish], guards=[only_with(token)], security=SECURITY)


async def _ready(container: AppointmentContainer, lifecycle: Lifecycle) -> Health:
    return await health(
        container.appointments().check(),
        lifecycle.check_alive,
        partial(_oldest_unpublished, container),
        relay=container.relay().problem,
    )


async def _oldest_unpublished(container: AppointmentContainer) -> float | None:
    oldest = await container.outbox().oldest()
    return None if oldest is None else (container.clock()() - oldest).total_seconds()
