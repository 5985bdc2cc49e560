"""A collector of traces: OTLP over HTTP, as OpenTelemetry's own exporter sends it."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from msgspec import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent

from support.processes import eventually

Context = tuple[str, str]
"""A trace's id and a span's."""


class Span(Struct, frozen=True, kw_only=True):
    """What the tests look at. Times are in nanoseconds since 1970."""

    service: str
    instance: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: list[Context]
    attributes: dict[str, str]
    start: int
    end: int
    failed: bool

    @property
    def context(self) -> Context:
        return self.trace_id, self.span_id


class Collector:
    """All spans that came, in the order of their starts."""

    def __init__(self, url: str) -> None:
        self.environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "20"}
        self._spans: list[Span] = []

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = _values(resource.resource.attributes)
            for scope in resource.scope_spans:
                self._spans += [_span(span, about) for span in scope.spans]

    @property
    def spans(self) -> list[Span]:
        return sorted(self._spans, key=lambda span: span.start)

    async def came(self, *names: str) -> list[Span]:
        """All spans, once there is one of each of these names."""

        async def have_come() -> bool:
            return {span.name for span in self._spans} >= set(names)

        try:
            await eventually(have_come, within=30)
        except AssertionError:
            raise AssertionError(f"of {names} only {[span.name for span in self._spans]} came") from None
        return self.spans

    def way_of(self, trace_id: str) -> list[Span]:
        """The spans of this trace, and those that link to one of them."""
        return [
            span for span in self.spans if trace_id in {span.trace_id, *(linked for linked, _ in span.links)}
        ]


def _span(sent: Sent, about: Mapping[str, str]) -> Span:
    return Span(
        service=about["service.name"],
        instance=about.get("service.instance.id", ""),
        name=sent.name,
        kind=Sent.SpanKind.Name(sent.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=sent.trace_id.hex(),
        span_id=sent.span_id.hex(),
        parent_id=sent.parent_span_id.hex(),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in sent.links],
        attributes=_values(sent.attributes),
        start=sent.start_time_unix_nano,
        end=sent.end_time_unix_nano,
        failed=sent.status.code == sent.status.STATUS_CODE_ERROR,
    )


def _values(attributes: Any) -> dict[str, str]:
    return {each.key: str(getattr(each.value, each.value.WhichOneof("value"))) for each in attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector at work, on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    serving.start()
    try:
        yield collector
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
