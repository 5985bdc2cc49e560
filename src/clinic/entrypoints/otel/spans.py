"""The moments of a trace as spans, by OpenTelemetry's conventions for HTTP and for messaging.

The context of an event's *create* span is kept with the event, and its `charge` is a child of that: at once,
after a crash, or when a dead letter is replayed. What is done to a batch is a trace of its own, with links.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from time import time_ns
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanKind, set_span_in_context
from opentelemetry.trace.span import SpanContext, TraceFlags, TraceState
from opentelemetry.trace.status import StatusCode

from clinic.domain.events import AppointmentFinished
from clinic.domain.financial.use_cases import Charged
from clinic.domain.messaging.dead_letters import DeadLetter
from clinic.domain.messaging.messages import Delivery, Message, Received
from clinic.entrypoints import trace_context
from clinic.entrypoints.otel.export import Export
from clinic.entrypoints.telemetry import LoggingTelemetry
from clinic.entrypoints.trace_context import TraceContext
from clinic.entrypoints.tracing import Report, Tracing, about, extended, in_hop

UNTRACED: Final = ("/health/", "/metrics")
"""Beginnings of paths that machines ask all the time."""
MAX_TEXT: Final = 200
"""Characters of what comes from outside."""

Contexts = Mapping[str, TraceContext]


class SpanTracing(Tracing):
    """Makes spans, and has them exported."""

    def __init__(self, service: str, transport: str, telemetry: LoggingTelemetry) -> None:
        self._export = Export(service, telemetry)
        self._tracer = self._export.tracer
        self._transport = transport
        self._batch: TraceContext | None = None

    async def end(self) -> None:
        await self._export.end()

    def begin_request(self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]]) -> Any:
        super().begin_request(method, path, headers)
        if path.startswith(UNTRACED):
            return None
        attributes = {"url.scheme": "http", "url.path": path[:MAX_TEXT]}
        span = self._span("request", SpanKind.SERVER, attributes, trace_context.current.get())
        trace_context.current.set(_context(span))
        return span

    def end_request(self, begun: Any, route: str, method: str, status: int) -> None:
        if begun is None:
            return
        begun.update_name(f"{method} {route}")
        begun.set_attributes(
            {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        )
        if not status or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            begun.set_status(StatusCode.ERROR)
        begun.end()

    @contextmanager
    def creating(self, events: Sequence[Message]) -> Iterator[Sequence[Message]]:
        parent = trace_context.current.get()
        create = partial(self._messaging, "create", SpanKind.PRODUCER, parent=parent)
        spans = [create(_described(event)) for event in events]
        with _ending(*spans):
            yield [extended(*each) for each in zip(events, map(_kept, spans), strict=True)]

    @contextmanager
    def sending(self, batch: Sequence[Message], contexts: Contexts) -> Iterator[Sequence[Message]]:
        span = self._messaging("send", SpanKind.CLIENT, _size(batch), links=contexts.values())
        with _ending(span):
            hop = in_hop(_context(span))
            yield [extended(message, hop) for message in batch]

    def received(self, batch: Sequence[Delivery], contexts: Contexts) -> None:
        self._batch = None  # the one before is over, whatever becomes of this span
        span = self._messaging("receive", SpanKind.CLIENT, _size(batch), links=contexts.values())
        self._batch = _context(span)
        span.end()

    @contextmanager
    def charging(self, finished: Sequence[Received[AppointmentFinished]]) -> Iterator[Report]:
        parent = trace_context.current.get() or self._batch
        contexts = [_found(each.origin.position, str(each.event.appointment_id)) for each in finished]
        links = filter(None, contexts)
        process = self._messaging("process", SpanKind.CONSUMER, _size(finished), parent, links)
        batch, began = _context(process), time_ns()

        def report(outcomes: Sequence[Charged]) -> None:
            for received, context, charged in zip(finished, contexts, outcomes, strict=True):
                attributes = {
                    "clinic.appointment_id": str(received.event.appointment_id),
                    "clinic.outcome": charged.outcome,
                }
                self._span(
                    "charge", SpanKind.INTERNAL, attributes, context or batch, [batch], start_time=began
                ).end()

        with _ending(process):
            yield report

    def dead_lettered(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            attributes = {"clinic.appointment_id": letter.about, "error.type": letter.code}
            parent = _found(letter.position, letter.about) or self._batch
            span = self._span("dead-letter", SpanKind.INTERNAL, attributes, parent)
            span.set_status(StatusCode.ERROR)
            span.end()

    def _messaging(
        self,
        operation: str,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        parent: TraceContext | None = None,
        links: Iterable[TraceContext] = (),
    ) -> Span:
        common = {
            "messaging.system": self._transport,
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
        }
        return self._span(operation, kind, {**common, **attributes}, parent, links)

    def _span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        parent: TraceContext | None,
        links: Iterable[TraceContext] = (),
        start_time: int | None = None,
    ) -> Span:
        above = set_span_in_context(NonRecordingSpan(_remote(parent)), Context()) if parent else Context()
        linked = [Link(_remote(context)) for context in dict.fromkeys(links)]
        return self._tracer.start_span(name, above, kind, attributes, linked, start_time)


@contextmanager
def _ending(*spans: Span) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        for span in spans:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(StatusCode.ERROR)
        raise
    finally:
        for span in spans:
            span.end()


def _found(position: str, appointment_id: str) -> TraceContext | None:
    known = trace_context.carried.get() or {}
    return known.get(position) or known.get(appointment_id)


def _size(batch: Sequence[object]) -> Mapping[str, Any]:
    return {"messaging.batch.message_count": len(batch)}


def _described(event: Message) -> Mapping[str, Any]:
    return {"messaging.message.id": event.id, "clinic.appointment_id": about(event)}


def _kept(span: Span) -> Sequence[tuple[str, str]]:
    return _context(span).named()


def _context(span: Span) -> TraceContext:
    """The span's own, as text."""
    its = span.get_span_context()
    parent = f"00-{its.trace_id:032x}-{its.span_id:016x}-{its.trace_flags:02x}"
    return TraceContext(parent, its.trace_state.to_header())


def _remote(context: TraceContext) -> SpanContext:
    _, trace_id, span_id, flags = context.parent.split("-")
    state = TraceState.from_header([context.state]) if context.state else None
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)), state)
