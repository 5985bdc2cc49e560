"""Where spans go: a bounded queue, a thread that sends them, and an end that waits for one second at most."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer

from clinic.entrypoints.telemetry import LoggingTelemetry

CHATTERS: Final = ("opentelemetry", "urllib3")
"""Loggers that have a line for each span that is lost: `_Exporter` reports in our words."""
END_TIMEOUT: Final = 1.0
"""Seconds that the end of a service waits for its last spans."""
MAX_LINKS: Final = 2000
"""Of a span: a batch has no more messages, and OpenTelemetry keeps 128 unless told otherwise."""


class Export:
    """Sends ended spans to the collector. It never blocks: where the queue is full, the oldest are dropped.

    OpenTelemetry's variables say where to, how many are kept, and which traces (`OTEL_TRACES_SAMPLER`).
    """

    def __init__(self, service: str, telemetry: LoggingTelemetry) -> None:
        for name in CHATTERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._provider = TracerProvider(
            resource=_resource(service),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_links=MAX_LINKS),
        )
        exporter = _Exporter(telemetry)
        processor = _Processor(exporter)
        self._provider.add_span_processor(processor)
        telemetry.count("clinic_spans_ended", "Spans to be exported.", lambda: processor.ended)
        telemetry.count("clinic_spans_exported", "Spans that the collector took.", lambda: exporter.exported)

    @property
    def tracer(self) -> Tracer:
        return self._provider.get_tracer("clinic", version("clinic"))

    async def end(self) -> None:
        """Send what is left, within `END_TIMEOUT`: a collector may refuse, or say nothing at all."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            try:
                self._provider.shutdown()
            finally:
                with suppress(RuntimeError):  # nobody waits any more, and the loop is closed
                    loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=shut_down, name="otel-end", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT):
                await ended.wait()


class _Processor(BatchSpanProcessor):
    ended = 0

    def on_end(self, span: ReadableSpan) -> None:
        self.ended += span.context is not None and span.context.trace_flags.sampled
        super().on_end(span)


class _Exporter(SpanExporter):
    """Reports once when the collector no longer takes spans, not for each."""

    def __init__(self, telemetry: LoggingTelemetry) -> None:
        self._telemetry = telemetry
        self._exporter = OTLPSpanExporter()
        self._has_failed = False
        self.exported = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        reason = "the collector does not take them"
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 — the SDK would log it where nobody reads
            result, reason = SpanExportResult.FAILURE, f"{type(error).__name__}: {error}"
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._has_failed:
            self._telemetry("traces are lost", reason=reason)
        self.exported += 0 if failed else len(spans)
        self._has_failed = failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _resource(service: str) -> Resource:
    """As OpenTelemetry's variables say, or else by the service's own name."""
    ours = Resource({SERVICE_NAME: f"clinic-{service}", SERVICE_VERSION: version("clinic")})
    return Resource.create().merge(ours).merge(OTELResourceDetector().detect())
