"""The standing audit over HTTP: health, metrics, and what it found, in pages."""

from typing import Annotated, Literal
from uuid import UUID

from litestar import Litestar, get
from litestar.di import NamedDependency
from litestar.params import FromQuery
from msgspec import Meta, Struct

from clinic.domain.errors import NotNow
from clinic.domain.money import Money
from clinic.entrypoints import formats
from clinic.entrypoints.service import Lifecycle
from clinic.entrypoints.telemetry import LoggingTelemetry
from clinic.entrypoints.tracing import Tracing
from clinic.entrypoints.watcher.findings import Findings, Found
from clinic.entrypoints.watcher.metrics import WatcherMetrics
from clinic.entrypoints.watcher.standing import StandingAudit
from clinic.entrypoints.web import parameters
from clinic.entrypoints.web.app import Health, application
from clinic.entrypoints.web.pages import page
from clinic.entrypoints.web.problems import documented


class FindingResponse(Struct, frozen=True):
    """What is not as it should be about one appointment.

    `missing`: finished and not charged. `orphaned`: charged and not finished. `wrong`: not what its own
    policy makes of the appointment. `remedy` is what mends it; `repair`: what came of one, else null.
    """

    appointment_id: Annotated[UUID, Meta(examples=["84ab6121-c4a8-4684-8cc2-b03024ec0f1d"])]
    kind: Literal["missing", "orphaned", "wrong"]
    expected: Money | None
    found: Money | None
    remedy: Literal["republish", "replay", "publication", "a person"]
    explanation: str
    since: Annotated[formats.Date, Meta(description="When a round first found it: UTC.")]
    repair: str | None


class FindingPage(Struct, frozen=True):
    """Some findings, the newest appointment first."""

    items: list[FindingResponse]
    next: parameters.Next


@get(
    "/findings/",
    tags=["findings"],
    summary="List what the last rounds found",
    responses=documented(),
)
async def list_findings(
    findings: NamedDependency[Findings],
    limit: parameters.Limit = parameters.DEFAULT_LIMIT,
    after: FromQuery[str | None] = None,
) -> FindingPage:
    """The newest appointment first, a page at a time. A round ends after 10,000 findings."""
    found, more = page(
        findings.page(limit + 1, parameters.place(after, UUID)),
        limit,
        lambda each: each.finding.appointment_id,
    )
    return FindingPage([_response(each) for each in found], more)


def _response(found: Found) -> FindingResponse:
    finding = found.finding
    return FindingResponse(
        appointment_id=finding.appointment_id,
        kind=finding.kind,
        expected=finding.expected,
        found=finding.found,
        remedy=finding.remedy,
        explanation=finding.explanation,
        since=formats.date(found.since),
        repair=found.repair.explanation if found.repair else None,
    )


def create_app(
    audit: StandingAudit,
    telemetry: LoggingTelemetry,
    metrics: WatcherMetrics,
    tracing: Tracing,
    lifecycle: Lifecycle,
) -> Litestar:
    """The app of this audit. Its lifespan runs the rounds."""

    async def ready() -> Health:
        return _health(audit, lifecycle)

    return application(
        title="Audit",
        description="Compares finished appointments with their charges, round after round.",
        routes=[list_findings],
        dependencies={"findings": lambda: audit.findings},
        ready=ready,
        telemetry=telemetry,
        metrics=metrics,
        tracing=tracing,
        lifecycle=lifecycle,
        resources=lambda: (),
        loop=audit.run,
    )


def _health(audit: StandingAudit, lifecycle: Lifecycle) -> Health:
    """Unready: its loop has ended, or no round has ended well in the time of three."""
    try:
        lifecycle.check_alive()
    except NotNow as error:
        return Health("unready", {"audit": str(error)})
    if audit.is_overdue:
        ended = (
            "no round has ended well yet"
            if audit.last_success is None
            else (f"no round has ended well since {formats.date(audit.last_success)}")
        )
        return Health("unready", {"audit": f"{ended}: {audit.problem or 'one is under way'}"})
    return Health("degraded" if audit.problem else "ready", {"audit": audit.problem or "ok"})
