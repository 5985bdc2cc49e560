"""docs/metrics.md, made from what the services show."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric

from clinic.entrypoints.metrics import CODES, EVENTS, METHODS, OTHER, STATUSES

PATH = Path(__file__).parents[2] / "docs" / "metrics.md"
HEAD = """# Metrics

Each service shows them under `/metrics`, in Prometheus's text format. `make metrics-page` writes this page, and a
test holds it. [alerts.yaml](../deploy/prometheus/alerts.yaml) says what to alert on, and [runbook.md](runbook.md)
what to do then.

A label's values are from a closed set: no path, type or text of a client or a foreign producer makes a series.
What needs a store is asked at each scrape, one second for all of it: what has not answered by then is absent, and
`clinic_scrape_answered` is 0. Two services in one process (`clinic run --in-process`) share what is about the
process, and the sizes of groups. The standing audit shows what both do, except for the disk. `process_…` and
`python_info` are those of Prometheus's own library.
"""  # noqa: E501 — a page's lines are wider than the code's
LABELS = {
    "event": "[below](#events)",
    "route": "the route's template, or `unmatched`",
    "method": ", ".join(f"`{method}`" for method in [*sorted(METHODS), OTHER]),
    "status": ", ".join(f"`{status}`" for status in [*STATUSES.values(), "none"]) + " (the client left)",
    "code": ", ".join(f"`{code}`" for code in [*CODES, OTHER]),
    "scope": "`day`, `all`",
    "question": "`disk`; in the appointment service `outbox`, in the financial service `lag`, `dead letters`",
    "version": "of the `clinic` package",
}
"""What the values of a label are, where the samples do not show them all."""


def made(appointment: CollectorRegistry, financial: CollectorRegistry, audit: CollectorRegistry) -> str:
    """The page."""
    ours, theirs, its = map(_families, (appointment, financial, audit))
    rows = [f"| `{event}` | {meaning} |" for event, meaning in EVENTS.items()]
    return "\n".join(
        [
            HEAD,
            *_section("The appointment service", [ours[name] for name in ours if name not in theirs]),
            *_section("The financial service", [theirs[name] for name in theirs if name not in ours]),
            *_section("The standing audit", [its[name] for name in its if name not in ours]),
            *_section("Both", [ours[name] for name in ours if name in theirs]),
            *("## Events", "", "| event | meaning |", "|---|---|", *rows, ""),
        ]
    )


def _families(registry: CollectorRegistry) -> dict[str, Metric]:
    found = {family.name: family for family in registry.collect()}
    return {name: found[name] for name in sorted(found) if not name.startswith(("process_", "python_"))}


def _section(title: str, families: Sequence[Metric]) -> Iterator[str]:
    yield from (f"## {title}", "", "| name | type | labels | meaning |", "|---|---|---|---|")
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield f"| `{name}` | {family.type} | {_labels(family)} | {family.documentation} |"
    yield ""


def _labels(family: Metric) -> str:
    names = {name for sample in family.samples for name in sample.labels} - {"le"}
    values = {name: {sample.labels.get(name) for sample in family.samples} for name in names}
    return "; ".join(
        f"`{name}`: {LABELS.get(name) or _all(sorted(filter(None, values[name])))}" for name in sorted(names)
    )


def _all(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)
