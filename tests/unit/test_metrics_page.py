"""docs/metrics.md says what the services show. `make metrics-page` writes it."""

import os
import re
from pathlib import Path

import pytest
from support import metrics_page
from support.apps import Clinic, settings

from clinic.entrypoints.telemetry import LoggingTelemetry
from clinic.entrypoints.watcher.metrics import WatcherMetrics

UNITS = ("_seconds", "_bytes", "_size", "_total", "_info")
WITHOUT = {
    "clinic_audit_braked", "clinic_audit_missing", "clinic_audit_orphaned", "clinic_audit_wrong",
    "clinic_charge_waiters", "clinic_consumer_lag_events", "clinic_dead_letters", "clinic_outbox_unpublished",
    "clinic_outbox_unpublished_more", "clinic_scrape_answered",
}  # fmt: skip
"""Gauges that count things, or say yes or no."""


@pytest.fixture
async def page(tmp_path: Path) -> str:
    async with Clinic(settings("sqlite", tmp_path)).running() as clinic:
        its_id = await clinic.start()
        await clinic.finish(its_id)
        await clinic.charged(its_id)
        for client in (clinic.appointments, clinic.charges):
            for _ in range(2):  # the second shows the first
                await client.get("/metrics")
        audit = LoggingTelemetry("audit").registry
        WatcherMetrics(audit, clinic.clock)
        services = clinic.appointment_telemetry.registry, clinic.financial_telemetry.registry
        return metrics_page.made(*services, audit)


async def test_the_page_of_metrics_says_what_the_services_show(page: str) -> None:
    if os.environ.get("CLINIC_TEST_REWRITE"):
        metrics_page.PATH.write_text(page)
    assert metrics_page.PATH.read_text() == page, "make metrics-page writes it anew"


async def test_names_and_units_are_prometheus_own(page: str) -> None:
    names = re.findall(r"^\| `(clinic_\w+)` \|", page, re.MULTILINE)
    assert len(names) > 25
    assert [name for name in names if not name.endswith(UNITS) and name not in WITHOUT] == []
