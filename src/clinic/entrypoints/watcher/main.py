"""The standing audit as a process."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import uvloop
from litestar import Litestar

from clinic.entrypoints.cli.audit import Finished
from clinic.entrypoints.cli.operator_session import attached_stores
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer, now
from clinic.entrypoints.log_writer import queue_standard_streams
from clinic.entrypoints.service import Lifecycle, Service, serve
from clinic.entrypoints.settings import Settings
from clinic.entrypoints.telemetry import LoggingTelemetry
from clinic.entrypoints.tracing import tracing_of
from clinic.entrypoints.watcher.app import create_app
from clinic.entrypoints.watcher.metrics import WatcherMetrics
from clinic.entrypoints.watcher.standing import Plan, Sides, StandingAudit

NICENESS: Final = 10
"""What watches makes way for what is watched."""


def run(settings: Settings, plan: Plan) -> None:
    """Run it until it is asked to end."""
    queue_standard_streams()
    os.nice(NICENESS)
    uvloop.run(_serve(settings, plan))


async def _serve(settings: Settings, plan: Plan) -> None:
    telemetry = LoggingTelemetry("audit")
    lifecycle = Lifecycle(telemetry)
    app = watcher(settings, plan, telemetry, lifecycle)
    await serve(
        Service(app, lifecycle, settings.audit_host, settings.audit_port, "CLINIC_AUDIT", settings.keep_alive)
    )


def watcher(settings: Settings, plan: Plan, telemetry: LoggingTelemetry, lifecycle: Lifecycle) -> Litestar:
    """The app of a standing audit of these services. Its lifespan runs the rounds, all in one tracing."""
    tracing = tracing_of("audit", settings.transport, telemetry)
    metrics = WatcherMetrics(telemetry.registry, now)

    @asynccontextmanager
    async def open_sides() -> AsyncIterator[Sides]:
        # Anew for each round: a store that was away, moved or restored is found as it is now.
        appointment = AppointmentContainer(settings=settings, tracing=tracing)
        financial = FinancialContainer(settings=settings, tracing=tracing)
        async with attached_stores(appointment, financial):
            yield Sides(financial.audit_charges(), financial.repair_charges(), Finished(appointment))

    audit = StandingAudit(
        open_sides, plan, now, asyncio.sleep, time.monotonic, random.uniform, telemetry, metrics
    )
    return create_app(audit, telemetry, metrics, tracing, lifecycle)
