"""What people see of a running service: a line and a count for each event that matters. Never a body."""

import logging
import sys
from functools import cached_property, lru_cache
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from clinic.domain.messaging.ports import Telemetry
from clinic.entrypoints.settings import Settings

WARNINGS: Final = frozenset({
    "cannot be published",
    "consumer waits",
    "differs from its charge",
    "failed again",
    "relay waits",
    "dead-lettered",
    "topic is weaker than asked for",
})  # fmt: skip


class LoggingTelemetry(Telemetry):
    """Logs and counts. `registry` is what /metrics shows."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self._service = service
        self._counter = Counter("clinic_events", "What happened, by name.", ["event"], registry=self.registry)
        self._counts = lru_cache(self._counter.labels)

    @cached_property
    def _log(self) -> Any:
        # Bound once, and not before the first line: by then logging is configured.
        return structlog.get_logger(service=self._service).bind()

    def __call__(self, event: str, /, **details: object) -> None:
        self._counts(event).inc()
        log = self._log.warning if event in WARNINGS else self._log.info
        log(event, **details)

    def failed(self, event: str, error: BaseException) -> None:
        """Something unforeseen, with its traceback."""
        self._counts(event).inc()
        self._log.error(event, exc_info=error)


def configure_logging(settings: Settings) -> None:
    """Readable lines for a terminal, or a JSON object a line; to standard error."""
    logging.getLogger("uvicorn.error").setLevel(
        logging.CRITICAL
    )  # what it has to say, the apps say in their own words
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
            *shape,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _plain_details(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {name: plain(each) if isinstance(each, str) else each for name, each in event.items()}


def plain(text: str) -> str:
    """The text with all that a terminal might obey, and line ends, written out: a stranger may have written
    it.
    """
    return (
        text
        if text.isprintable()
        else "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    )
