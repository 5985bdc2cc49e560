"""What people see of a running service: a line and a count for each event that matters. Never a body."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from clinic.domain.messaging.ports import Telemetry
from clinic.entrypoints import trace_context
from clinic.entrypoints.log_writer import LogWriter, standard_error
from clinic.entrypoints.metrics import EVENTS, OTHER
from clinic.entrypoints.settings import Settings

MAX_DETAIL: Final = 2000
"""Characters of one detail in a line: the rest is cut."""
WARNINGS: Final = frozenset({
    "audit finds",
    "audit needs a person",
    "audit waits",
    "cannot be published",
    "consumer waits",
    "differs from its charge",
    "failed again",
    "log lines dropped",
    "relay waits",
    "dead-lettered",
    "no traces",
    "one instance only",
    "topic is weaker than asked for",
    "topic was made anew",
    "traces are lost",
})  # fmt: skip


class LoggingTelemetry(Telemetry):
    """Logs and counts events. `registry` is what /metrics shows, with the lines that cannot be logged."""

    def __init__(self, service: str, writer: LogWriter = standard_error) -> None:
        self.registry = CollectorRegistry()
        self._writer = writer
        self.count("clinic_log_dropped", "Log lines that could not be written.", lambda: writer.dropped)
        self._service = service
        self._counter = Counter("clinic_events", "What happened, by name.", ["event"], registry=self.registry)
        self._counts = lru_cache(self._count_of)

    def _count_of(self, event: str) -> Counter:
        return self._counter.labels(event if event in EVENTS else OTHER)

    @cached_property
    def _log(self) -> Any:
        # Bound once, and not before the first line: by then logging is configured.
        return structlog.get_logger(service=self._service).bind()

    def count(self, name: str, documentation: str, read: Callable[[], int]) -> None:
        """Show a number that somebody else counts."""
        self.registry.register(_Count(name, documentation, read))

    def __call__(self, event: str, /, **details: object) -> None:
        try:
            self._counts(event).inc()
            log = self._log.warning if event in WARNINGS else self._log.info
            log(event, **details)
        except Exception:  # noqa: BLE001 — a caller must not fail because of its telemetry
            self._writer.drop()

    def failed(self, event: str, error: BaseException) -> None:
        """Something unforeseen, with its traceback."""
        try:
            self._counts(event).inc()
            self._log.error(event, exc_info=error)
        except Exception:  # noqa: BLE001 — a caller must not fail because of its telemetry
            self._writer.drop()


class _Count(Collector):
    def __init__(self, name: str, documentation: str, read: Callable[[], int]) -> None:
        self._name = name
        self._documentation = documentation
        self._read = read

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self._name, self._documentation, value=self._read())


class _QueuedLogger:
    """Where structlog's lines go. Errors go first: the last one may say why a service ends."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer

    def info(self, line: str) -> None:
        self._writer.write(line + "\n")

    debug = warning = info

    def error(self, line: str) -> None:
        self._writer.write(line + "\n", urgent=True)

    critical = error


def configure_logging(settings: Settings, writer: LogWriter = standard_error) -> None:
    """Readable lines for a terminal, or a JSON object a line; to standard error."""
    # The apps report in their own words what uvicorn would log.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    writer.recovered = lambda count: structlog.get_logger().warning("log lines dropped", count=count)
    shape: list[structlog.types.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [
            _plain_details,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), pad_event_to=18, exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _read_details,
            _add_trace,
            _cut_details,
            *shape,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level.upper())),
        logger_factory=lambda *_: _QueuedLogger(writer),
        cache_logger_on_first_use=False,
    )


def _read_details(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return read(event)


def _add_trace(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    context = trace_context.concerning(event)
    return {**event, "trace_id": context.trace_id} if context else event


def read(details: Mapping[str, object]) -> dict[str, object]:
    """Details as somebody reads them: what is a callable is made now."""
    return {name: value() if callable(value) else value for name, value in details.items()}


def _cut_details(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {
        name: f"{value[:MAX_DETAIL]} [cut]" if isinstance(value, str) and len(value) > MAX_DETAIL else value
        for name, value in event.items()
    }


def _plain_details(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {name: plain(value) if isinstance(value, str) else value for name, value in event.items()}


def plain(text: str) -> str:
    """Escape control characters: the text comes from outside and may contain terminal sequences."""
    return (
        text
        if text.isprintable()
        else "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    )
