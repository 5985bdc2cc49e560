"""The standing audit: its last round, what it found, and what mends it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal
from uuid import UUID

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.response import Template
from msgspec import Struct

from clinic.domain.money import Money
from clinic.entrypoints.console.client import Away, Page, Service, Services
from clinic.entrypoints.console.languages import marked
from clinic.entrypoints.console.letters import PAGE_SIZE
from clinic.entrypoints.console.shapes import Health
from clinic.entrypoints.console.view import View

KINDS: Final = {
    "missing": marked("finished and not charged"),
    "orphaned": marked("charged and not finished"),
    "wrong": marked("charged, and not what it should be"),
}
REMEDIES: Final = {
    "republish": marked("Its event is published again; the financial service then charges it, once."),
    "replay": marked("A dead letter is about it: look at it, and replay it once its cause is fixed."),
    "publication": marked("Its event waits to be published: nothing to do here but to run the service."),
    "a person": marked("No program can say which side is right: a person has to look."),
}


class Finding(Struct, frozen=True):
    """What is not as it should be about one appointment."""

    appointment_id: UUID
    kind: Literal["missing", "orphaned", "wrong"]
    expected: Money | None
    found: Money | None
    remedy: Literal["republish", "replay", "publication", "a person"]
    explanation: str
    since: datetime
    repair: str | None


class Round(Struct, frozen=True):
    """How the rounds stand. `ended`: when the last one ended well; None before the first."""

    problem: str
    ended: datetime | None
    compared: float
    counts: Mapping[str, float]


@get("/audit/")
async def audit(
    view: NamedDependency[View], services: NamedDependency[Services], after: FromQuery[str] = ""
) -> Template:
    """The last round and its findings, the newest appointment first."""
    try:
        query = {"after": after, "limit": PAGE_SIZE}
        findings = await services.audit.get(Page[Finding], "/findings/", query)
        last = await _last_round(services.audit)
    except Away as error:
        return view.page("audit", status=503, away=error)
    shown = {"last": last, "findings": findings, "kinds": KINDS, "remedies": REMEDIES, "after": after}
    return view.page("audit", status=200, away=None, **shown)


async def _last_round(service: Service) -> Round:
    health = await service.health(Health)
    lines = (await service.metrics()).splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines if line.startswith("clinic_audit_"))
    ended = float(found.get("clinic_audit_last_success_timestamp_seconds", 0))
    said = [each for each in health.checks.values() if each != "ok"]
    return Round(
        problem="; ".join(said),
        ended=datetime.fromtimestamp(ended, UTC) if ended else None,
        compared=float(found.get("clinic_audit_checked_total", 0)),
        counts={kind: float(found.get(f"clinic_audit_{kind}", 0)) for kind in KINDS},
    )


ROUTES: Final = [audit]
