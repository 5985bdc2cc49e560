"""The metrics of a service: what /metrics shows beside the counted events. docs/metrics.md lists them all.

Every label is from a closed set: nothing that a client or a foreign producer writes makes a series.
"""

import asyncio
import os
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from clinic.adapters.group_commit import GroupCommit
from clinic.adapters.threads import in_thread
from clinic.domain.financial.dead_letters import GroupDeadLetters
from clinic.domain.messaging.ports import Clock, Outbox

Answer = Sequence[Metric]
Question = Callable[[], Awaitable[Answer]]

ASK_TIMEOUT: Final = 1.0
"""Seconds that a scrape waits for all that it asks; what has not answered by then is left out."""
DELAY_INTERVAL: Final = 0.25
MAX_COUNTED: Final = 10_000
"""Unpublished events that are counted; `clinic_outbox_unpublished_more` says that there are more."""

FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LATE: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600)
SIZES: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)
EVENTS: Final = {
    "finished": "an appointment was finished, and its event saved",
    "published": "its event was published",
    "relay waits": "publishing failed and will be repeated",
    "cannot be published": "an event was refused by the transport: it stays in the outbox",
    "charged": "a new charge was made",
    "already charged": "a duplicate: the event was charged before",
    "differs from its charge": "a duplicate that says something else than the charge",
    "skipped": "a message that is not for accounting",
    "dead-lettered": "a message that cannot be charged was stored for a person",
    "consumer waits": "charging failed and will be repeated",
    "replayed": "a person replayed a dead letter",
    "failed again": "a replayed dead letter cannot be charged yet",
    "discarded": "a person discarded a dead letter",
    "audited": "a round of the standing audit ended",
    "audit finds": "it found something new about an appointment",
    "audit repairs": "it published the event of a missing charge again",
    "audit waits": "a round could not look, and will be repeated",
    "audit needs a person": "more is missing than a round may repair",
    "one instance only": "its charges or events are in its own files: a second one elsewhere has others",
    "topic is weaker than asked for": "Kafka's topic may lose events, or has too few partitions",
    "topic was made anew": "Kafka's topic is another one: what was not charged in the old one is gone, "
    "and `clinic audit` finds it",
    "no traces": "traces are asked for and cannot be made: the service runs without",
    "traces are lost": "the collector does not take spans: they are dropped until it does",
    "spans fail": "OpenTelemetry raised an error: logged once, and `clinic_spans_failed_total` counts all",
    "client left": "a client left in the middle of its request",
    "unforeseen": "a defect: a request was answered 500, or a task failed unheard",
    "could not start or end": "the service ended",
    "the loop behind the service ended": "the service ended",
    "a thread behind the service ended": "the service ended",
}
"""All that is counted, with what it means."""
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
STATUSES: Final = {hundred: f"{hundred}xx" for hundred in range(1, 6)}
OTHER: Final = "other"
GROUPS: Final = "Starts, finishes and look-ups that one call of the store answered."
CODES: Final = (
    "amount-invalid", "data-incomplete", "data-unreadable", "date-invalid", "ends-before-start", "refused",
    "type-missing", "type-unknown", "unreadable",
)  # fmt: skip
"""The codes of refusals that make a dead letter, without the field that some of them name."""


class Histogram(Collector):
    """A histogram that only the event loop's thread touches: it needs no lock, and takes a batch at once."""

    def __init__(
        self,
        name: str,
        help_: str,
        buckets: Sequence[float],
        labels: Sequence[str] = (),
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._name = name
        self._help = help_
        self._labels = labels
        self._bounds = buckets
        self._counts: dict[Sequence[str], list[int]] = {}
        self._sums: dict[Sequence[str], float] = {}
        if not labels:
            self.observe(0, times=0)
        if registry:
            registry.register(self)

    def observe(self, value: float, labels: Sequence[str] = (), times: int = 1) -> None:
        """Count the value, or as many of that value."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(self._bounds, value)] += times
        self._sums[labels] += value * times

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        for labels, counts in self._counts.items():
            total, buckets = 0, []
            for bound, count in zip((*map(float, self._bounds), "+Inf"), counts, strict=True):
                total += count
                buckets.append((str(bound), total))
            family.add_metric(labels, buckets, self._sums[labels])
        yield family


class Metrics(Collector):
    """What both services show: requests, the event loop, the process, the build, and what a scrape asks.

    `questions` are put at each scrape, within `ASK_TIMEOUT` for all; one that is still being answered is not
    put again. Where one has no answer, its gauges are absent, and `clinic_scrape_answered` says so.
    """

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self.registry, self._clock = registry, clock
        self.questions: dict[str, Question] = {}
        self._asking: dict[str, asyncio.Task[Answer | None]] = {}
        self._answers: dict[str, Answer | None] = {}
        self.requests = Histogram(
            "clinic_http_request_duration_seconds",
            "Requests by route, method and class of status, from the head of the request to the end of the "
            "answer; `Prefer: wait` waits in it. Its count is the number of requests.",
            FAST,
            ("route", "method", "status"),
            registry,
        )
        self.loop_delay = Histogram(
            "clinic_event_loop_delay_seconds",
            f"How much too late the event loop woke, asked every {DELAY_INTERVAL:g} s.",
            FAST,
            registry=registry,
        )
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("clinic_build_info", "The version that runs; always 1.", labels=["version"])
        build.add_metric([version("clinic")], 1)
        yield build
        time = "The time by the service's clock, in seconds since 1970."
        yield GaugeMetricFamily("clinic_time_seconds", time, value=self._clock().timestamp())
        answered = GaugeMetricFamily(
            "clinic_scrape_answered",
            f"Whether what the scrape asked was answered within {ASK_TIMEOUT:g} s: 1, or 0 and its gauges "
            "are absent.",
            labels=["question"],
        )
        for name, answer in self._answers.items():
            answered.add_metric([name], int(answer is not None))
        yield answered
        for answer in self._answers.values():
            yield from answer or ()

    async def scrape(self) -> bytes:
        """The page of /metrics. Takes no longer than `ASK_TIMEOUT`, whatever does not answer."""
        for name, ask in self.questions.items():
            if name not in self._asking:
                self._asking[name] = asyncio.create_task(_answered(ask))
        if self._asking:
            await asyncio.wait(self._asking.values(), timeout=ASK_TIMEOUT)
        for name, asking in list(self._asking.items()):
            self._answers[name] = asking.result() if asking.done() else None
            if asking.done():
                del self._asking[name]
        return generate_latest(self.registry)

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """Measure the event loop's delay; at the end, leave the questions that are still being answered."""
        measuring = asyncio.create_task(self._measure_delay())
        try:
            yield
        finally:
            measuring.cancel()
            for asking in self._asking.values():
                asking.cancel()

    async def _measure_delay(self) -> None:
        time = asyncio.get_running_loop().time
        while True:
            began = time()
            await asyncio.sleep(DELAY_INTERVAL)
            self.loop_delay.observe(max(0.0, time() - began - DELAY_INTERVAL))


class AppointmentMetrics(Metrics):
    """An event's way out of the appointment context."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        super().__init__(registry, clock)
        self.publish_duration = Histogram(
            "clinic_publish_duration_seconds",
            "How long a batch took to be published.",
            FAST,
            registry=registry,
        )
        self.publish_size = Histogram(
            "clinic_publish_batch_size", "Events in a batch that is published.", SIZES, registry=registry
        )
        self.late_claims = Counter(
            "clinic_late_claims",
            "Events claimed later than a lease after their save: taken over from a relay that died or slept, "
            "or from behind a backlog.",
            registry=registry,
        )
        self.retries = _retries(registry, "relay", ("claim", "publish", "confirm"))
        registry.register(_GroupSizes())


class _GroupSizes(Collector):
    def collect(self) -> Iterator[Metric]:
        sizes = Histogram("clinic_group_commit_size", GROUPS, SIZES)
        for size, times in GroupCommit.sizes.items():
            sizes.observe(size, times=times)
        yield from sizes.collect()


class FinancialMetrics(Metrics):
    """An event's way into the financial context."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        super().__init__(registry, clock)
        self.time_to_charge = Histogram(
            "clinic_time_to_charge_seconds",
            "From the save of a finish (`recordedtime` of its event) to the charge kept; replayed dead "
            "letters are not in it.",
            LATE,
            registry=registry,
        )
        self.handling_duration = Histogram(
            "clinic_handling_duration_seconds",
            "How long charging a batch took, or a part of a large one.",
            FAST,
            registry=registry,
        )
        self.batch_size = Histogram(
            "clinic_consumer_batch_size", "Messages in a batch that is received.", SIZES, registry=registry
        )
        self.dead_lettered = Counter(
            "clinic_dead_lettered",
            "Messages that became dead letters, by the code of the refusal.",
            ["code"],
            registry=registry,
        )
        for code in (*CODES, OTHER):
            self.dead_lettered.labels(code)
        self.waiters = Gauge(
            "clinic_charge_waiters", "Requests that wait for a charge (`Prefer: wait`).", registry=registry
        )
        steps = ("receive", "charge", "dead-letter", "acknowledge")
        self.retries = _retries(registry, "consumer", steps)

    def dead_letter(self, code: str) -> None:
        """Count one of that code."""
        kind = code.partition(":")[0]
        self.dead_lettered.labels(kind if kind in CODES else OTHER).inc()


def _retries(registry: CollectorRegistry, loop: str, causes: Sequence[str]) -> Counter:
    counter = Counter(
        f"clinic_{loop}_retries",
        "Attempts to be repeated, by the step that failed.",
        ["cause"],
        registry=registry,
    )
    for cause in causes:
        counter.labels(cause)
    return counter


async def _answered(ask: Question) -> Answer | None:
    """None where it fails, in whatever way: a scrape shows the rest."""
    with suppress(Exception):
        return await ask()
    return None


async def backlog(outbox: Outbox, clock: Clock) -> Answer:
    """What waits to be published."""
    oldest, count = await outbox.oldest(), await outbox.count(MAX_COUNTED + 1)
    age = 0.0 if oldest is None else max(0.0, (clock() - oldest).total_seconds())
    return [
        GaugeMetricFamily(
            "clinic_outbox_oldest_seconds", "Since when the oldest unpublished event waits; 0 without.", age
        ),
        GaugeMetricFamily(
            "clinic_outbox_unpublished",
            f"Events that wait to be published, counted up to {MAX_COUNTED}.",
            min(count, MAX_COUNTED),
        ),
        GaugeMetricFamily(
            "clinic_outbox_unpublished_more",
            f"1 where more than {MAX_COUNTED} wait, else 0.",
            int(count > MAX_COUNTED),
        ),
    ]


async def lag(ask: Callable[[], Awaitable[int | None]], seconds: Callable[[], float]) -> Answer:
    """How far the consumer is behind."""
    found = await ask()
    held = GaugeMetricFamily(
        "clinic_consumer_lag_seconds",
        "Since when the oldest message of the batch in hand is published; 0 without a batch.",
        seconds(),
    )
    help_ = "Messages that the group has not acknowledged; absent where the transport cannot say."
    return [held] if found is None else [held, GaugeMetricFamily("clinic_consumer_lag_events", help_, found)]


async def dead_letters(groups: GroupDeadLetters) -> Answer:
    """How many letters there are."""
    found = await groups()
    family = GaugeMetricFamily("clinic_dead_letters", "Dead letters by state.", labels=["state"])
    for state in ("waiting", "replayed", "discarded"):
        family.add_metric([state], sum(getattr(group, state) for group in found))
    return [family]


def ask_disk(metrics: Metrics, folder: Path | None) -> None:
    """Only where the service keeps files of its own: other stores' disks are elsewhere."""
    if folder:
        metrics.questions["disk"] = lambda: disk(folder)


async def disk(folder: Path) -> Answer:
    """The file system of that folder."""
    found = await in_thread(os.statvfs, folder)
    free, size = (blocks * found.f_frsize for blocks in (found.f_bavail, found.f_blocks))
    return [
        GaugeMetricFamily("clinic_disk_free_bytes", "Free on the disk of CLINIC_DATA_DIR (SQLite).", free),
        GaugeMetricFamily("clinic_disk_size_bytes", "The size of that disk.", size),
    ]


def route_labels(template: str | None, method: str, status: int) -> tuple[str, str, str]:
    """The labels of a request: its route's template, never its path."""
    return (
        template or "unmatched",
        method if method in METHODS else OTHER,
        STATUSES.get(status // 100, "none"),
    )
