"""What the standing audit shows under /metrics beside what every service shows."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from clinic.domain.messaging.ports import Clock
from clinic.entrypoints.metrics import Metrics

KINDS: Final = {
    "missing": "Appointments that are finished and not charged, counted up to 10,000.",
    "orphaned": "Charges without a finished appointment.",
    "wrong": "Charges that are not what their own policy makes of their appointments.",
}
SCOPES: Final = ("day", "all")


class WatcherMetrics(Metrics):
    """The rounds, what they found, and what they repaired."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        super().__init__(registry, clock)
        self.findings = {
            kind: Gauge(f"clinic_audit_{kind}", meaning, registry=registry) for kind, meaning in KINDS.items()
        }
        self.last_success = Gauge(
            "clinic_audit_last_success_timestamp_seconds",
            "When a round last ended well, in seconds since 1970; 0 before the first.",
            registry=registry,
        )
        self.checked = Counter("clinic_audit_checked", "Appointments that were compared.", registry=registry)
        self.failures = Counter("clinic_audit_failures", "Rounds that could not look.", registry=registry)
        self.repairs = Counter(
            "clinic_audit_repairs",
            "Missing charges whose events were published again: `charged` within the wait, or not yet.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("charged", "republished"):
            self.repairs.labels(outcome)
        self.braked = Gauge(
            "clinic_audit_braked",
            "1 where more is missing than a round may repair: a person has to look. Else 0.",
            registry=registry,
        )
        self.round_duration = Gauge(
            "clinic_audit_round_seconds",
            "How long the last round took: of what was started in a `day`, or of `all`.",
            ["scope"],
            registry=registry,
        )
        for scope in SCOPES:
            self.round_duration.labels(scope)
