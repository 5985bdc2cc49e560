"""The way of one appointment to its charge over HTTP, as far as a service knows it."""

from http import HTTPStatus
from typing import Annotated, Literal
from uuid import UUID

from litestar import get
from msgspec import Meta, Struct

from clinic.domain.reconciliation.tracing import TracedStep, with_waits
from clinic.domain.tracing import Trace
from clinic.entrypoints.web.problems import documented


class TraceResponse(Struct, frozen=True):
    """The steps that this service knows of, oldest first, and what the charge waits for here."""

    appointment_id: Annotated[UUID, Meta(examples=["84ab6121-c4a8-4684-8cc2-b03024ec0f1d"])]
    steps: list[TracedStep]
    waits_for: Annotated[
        Literal["to be finished", "to be published", "a person", "nothing"] | None,
        Meta(description="Null if it does not wait at this service, nor ends here.", examples=["nothing"]),
    ]
    explanation: Annotated[str, Meta(examples=["charged 400.00"])]


def trace_response(appointment_id: UUID, trace: Trace) -> TraceResponse:
    """A trace as it is shown: each step with the wait before it."""
    return TraceResponse(appointment_id, with_waits(trace.steps), trace.waits_for, trace.explanation)


def get_trace(summary: str) -> get:
    """The route of a trace."""
    return get(
        "/{appointment_id:uuid}/trace/",
        tags=["traces"],
        summary=summary,
        responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
    )
