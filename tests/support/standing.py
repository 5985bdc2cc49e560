"""A standing audit beside a clinic, in a time that a test moves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
from msgspec.structs import replace

from clinic.domain.appointment.model import Appointment
from clinic.domain.financial.model import Charge
from clinic.domain.financial.pricing import POLICIES
from clinic.domain.messaging.messages import Received
from clinic.entrypoints.cli.audit import Finished
from clinic.entrypoints.service import Lifecycle
from clinic.entrypoints.telemetry import LoggingTelemetry
from clinic.entrypoints.tracing import Tracing
from clinic.entrypoints.watcher.app import create_app
from clinic.entrypoints.watcher.metrics import WatcherMetrics
from clinic.entrypoints.watcher.standing import Plan, Sides, StandingAudit, first_id
from clinic.testing.builders import RecordedTelemetry, StandingMonotonic, an_appointment, an_origin
from support.apps import Clinic, client_of


class Turns:
    """A sleep that ends when a test says so, and the clock with it."""

    def __init__(self, clinic: Clinic) -> None:
        self._clock = clinic.clock
        self._begun, self._over = asyncio.Queue[float](), asyncio.Queue[None]()

    async def __call__(self, seconds: float) -> None:
        self._begun.put_nowait(seconds)
        await self._over.get()
        self._clock.move(seconds=seconds)

    async def ended(self) -> float:
        """Once a round has ended: for how long the loop sleeps."""
        return await asyncio.wait_for(self._begun.get(), 30)

    async def another(self) -> float:
        """End the sleep, and return as `ended` does."""
        self._over.put_nowait(None)
        return await self.ended()


class Standing:
    """A standing audit beside a clinic. `failure` is raised where it would open the stores."""

    def __init__(
        self, clinic: Clinic, repairs: int | None = None, grace: float = 60, wait: float = 5
    ) -> None:
        self._clinic = clinic
        self.failure: Exception | None = None
        self.turns = Turns(clinic)
        self.telemetry = RecordedTelemetry()
        self._shown = LoggingTelemetry("audit")
        self.metrics = WatcherMetrics(self._shown.registry, clinic.clock)
        plan = Plan(every=300, grace=timedelta(seconds=grace), repairs=repairs, wait=wait)
        self.audit = StandingAudit(
            self._sides,
            plan,
            clinic.clock,
            self.turns,
            StandingMonotonic(),
            max,
            self.telemetry,
            self.metrics,
        )

    @asynccontextmanager
    async def _sides(self) -> AsyncIterator[Sides]:
        if self.failure:
            raise self.failure
        financial, finished = self._clinic.financial, Finished(self._clinic.appointment)
        yield Sides(financial.audit_charges(), financial.repair_charges(), finished)

    @asynccontextmanager
    async def over_http(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client of its app, while its rounds run."""
        app = create_app(self.audit, self._shown, self.metrics, Tracing(), Lifecycle(self._shown))
        async with client_of(app) as client:
            yield client

    @property
    def found(self) -> dict[UUID, str]:
        """The kind of each finding."""
        page = self.audit.findings.page(100, None)
        return {each.finding.appointment_id: each.finding.kind for each in page}

    def value(self, name: str, **labels: str) -> float | None:
        return self._shown.registry.get_sample_value(name, labels)


async def finished(clinic: Clinic, ago: timedelta = timedelta(hours=3)) -> Appointment:
    """One that was started so long ago, lasted an hour, and was not charged."""
    start = clinic.clock() - ago
    its_id = UUID(int=first_id(start).int + uuid4().int % 2**60)
    made = an_appointment(id=its_id, start=start, end=start + timedelta(hours=1))
    await clinic.appointment.appointments().add(made)
    return made


async def charge(clinic: Clinic, made: Appointment, **changes: Any) -> None:
    event = made.finished_event
    assert event
    its_charge = Charge.for_finished(Received(event, an_origin()), POLICIES["hours-begun"], event.end)
    await clinic.financial.charges().add([replace(its_charge, **changes)])
