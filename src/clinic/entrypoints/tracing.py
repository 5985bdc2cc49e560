"""The moments of a trace, from a request to its charge: what is done at each of them, and who does it.

Here a trace is a text that is passed on. `clinic.entrypoints.otel` makes spans of the same moments.
"""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pkgutil import resolve_name
from typing import Any, Final

from msgspec.structs import replace

from clinic.adapters import cloudevents
from clinic.domain.events import AppointmentFinished
from clinic.domain.financial.use_cases import Charged
from clinic.domain.messaging.dead_letters import DeadLetter
from clinic.domain.messaging.messages import Delivery, Message, Received
from clinic.domain.messaging.ports import Telemetry
from clinic.entrypoints import trace_context
from clinic.entrypoints.trace_context import TraceContext

Attributes = Sequence[tuple[str, str]]
Report = Callable[[Sequence[Charged]], None]

SPANS: Final = "clinic.entrypoints.otel.guard:guarded_spans"
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Tracing:
    """What is done at the moments of a trace. Here its context is passed on, and no span is made."""

    def begin_request(self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]]) -> Any:
        """A request begins. What this returns is given to `end_request`."""
        del method, path
        trace_context.current.set(trace_context.of_headers(headers))

    def end_request(self, begun: Any, route: str, method: str, status: int) -> None:
        """It is over. `status` is 0 where it got no answer."""

    def creating(self, events: Sequence[Message]) -> AbstractContextManager[Sequence[Message]]:
        """Around the save of these events: gives them with the context that is kept with each."""
        context = trace_context.current.get()
        return nullcontext([extended(event, context.named()) for event in events] if context else events)

    def sending(
        self, batch: Sequence[Message], contexts: Mapping[str, TraceContext]
    ) -> AbstractContextManager[Sequence[Message]]:
        """Around a publication: gives the messages with the context of this hop."""
        sent = [_sent(message, contexts.get(about(message))) for message in batch] if contexts else batch
        return nullcontext(sent)

    def received(self, batch: Sequence[Delivery], contexts: Mapping[str, TraceContext]) -> None:
        """A batch came."""

    def charging(self, finished: Sequence[Received[AppointmentFinished]]) -> AbstractContextManager[Report]:
        """Around the charging of a batch: gives what is told the outcomes."""
        del finished
        return nullcontext(_nothing)

    def dead_lettered(self, letters: Sequence[DeadLetter]) -> None:
        """These were added."""

    @asynccontextmanager
    async def lifespan(self, _: object = None) -> AsyncIterator[None]:
        """As long as there is something to trace."""
        try:
            yield
        finally:
            await self.end()

    async def end(self) -> None:
        """Nothing is traced any more."""


def tracing_of(service: str, transport: str, telemetry: Telemetry) -> Tracing:
    """Makes spans where OpenTelemetry's own variables ask for them, and it is there to make them.

    What cannot be had is reported, and ends no start: traces are for people who watch.
    """
    try:
        if is_asked_for(os.environ):
            tracing: Tracing = resolve_name(SPANS)(service, transport, telemetry)
            return tracing
    except Exception as error:  # noqa: BLE001 — nothing depends on it
        remedy = "install clinic[otel]: " if isinstance(error, ImportError) else ""
        telemetry("no traces", reason=f"{remedy}{error}")
    return Tracing()


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """Whether traces are to be exported. Raises `ValueError` if in a way that there is not here."""

    def given(name: str) -> str:
        return environment.get(name, "").strip().lower()

    exporter = given("OTEL_TRACES_EXPORTER") or ("otlp" if any(map(given, ENDPOINTS)) else "none")
    if given("OTEL_SDK_DISABLED") == "true" or exporter == "none":
        return False
    protocol = given("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or given("OTEL_EXPORTER_OTLP_PROTOCOL")
    if exporter != "otlp" or protocol not in {"", "http/protobuf"}:
        raise ValueError(f"OTEL_… asks for {exporter} {protocol}: set otlp and http/protobuf")
    return True


def about(message: Message) -> str:
    """The appointment that it is about, as far as can be read."""
    return message.subject or message.key


def extended(message: Message, attributes: Attributes) -> Message:
    """The message with these extensions, too."""
    return replace(message, extensions=(*message.extensions, *attributes))


def in_hop(context: TraceContext) -> Attributes:
    """What makes it the plain headers of one hop."""
    return context.named(cloudevents.HOP)


def _sent(message: Message, context: TraceContext | None) -> Message:
    return extended(message, in_hop(context)) if context else message


def _nothing(_: Sequence[Charged]) -> None:
    return
