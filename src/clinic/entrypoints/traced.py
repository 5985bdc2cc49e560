"""Ports that pass a trace on: from a request to its event, and from a message to what becomes of it.

Here a trace is a text, and that is all. `clinic.entrypoints.otel` makes spans of the same moments.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pkgutil import resolve_name
from typing import Any, Final
from uuid import UUID

from msgspec.structs import replace

from clinic.adapters import cloudevents
from clinic.domain.appointment.model import Appointment
from clinic.domain.appointment.ports import AppointmentFilter, Appointments
from clinic.domain.events import AppointmentFinished
from clinic.domain.financial.dead_letters import ChargeBatch
from clinic.domain.financial.use_cases import Charged
from clinic.domain.messaging.dead_letters import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetters,
    HistoryEntry,
    LetterGroup,
)
from clinic.domain.messaging.messages import Delivery, Message, PublishResult, Received
from clinic.domain.messaging.ports import Publisher, Subscription, Telemetry
from clinic.entrypoints import trace_context
from clinic.entrypoints.trace_context import PARENT, TraceContext

Attributes = Sequence[tuple[str, str]]
Report = Callable[[Sequence[Charged]], None]

SPANS: Final = "clinic.entrypoints.otel.spans:SpanTracing"
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
        yield


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


class TracedAppointments(Appointments):
    """Keeps the context of the request with each event."""

    def __init__(self, appointments: Appointments, tracing: Tracing) -> None:
        self._appointments, self._tracing = appointments, tracing

    async def add(self, appointment: Appointment, *, once: bytes = b"") -> Appointment:
        return await self._appointments.add(appointment, once=once)

    async def get(self, appointment_id: UUID) -> Appointment:
        return await self._appointments.get(appointment_id)

    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        with self._tracing.creating(events) as created:
            return await self._appointments.save(appointment, *created)

    async def page(
        self, matching: AppointmentFilter, limit: int, after: UUID | None = None
    ) -> Sequence[Appointment]:
        return await self._appointments.page(matching, limit, after)

    async def check(self) -> None:
        await self._appointments.check()


class TracedPublisher(Publisher):
    """Sends each message with the context of this hop, beside the one that is kept with it."""

    def __init__(self, publisher: Publisher, tracing: Tracing) -> None:
        self._publisher, self._tracing = publisher, tracing

    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        found = ((about(message), _context(message)) for message in batch)
        contexts = _carry((name, context) for name, context in found if context)
        with self._tracing.sending(batch, contexts) as sent:
            return await self._publisher.publish(sent)


class TracedSubscription(Subscription):
    """Knows the contexts of the messages in hand."""

    def __init__(self, subscription: Subscription, tracing: Tracing) -> None:
        self._subscription, self._tracing = subscription, tracing

    async def receive(self) -> Sequence[Delivery]:
        batch = await self._subscription.receive()
        if batch:
            self._tracing.received(batch, _carry(_contexts(batch)))
        return batch

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        await self._subscription.acknowledge(batch)


class TracedCharging:
    """Charges events in the traces that they came from."""

    def __init__(self, charge: ChargeBatch, tracing: Tracing) -> None:
        self._charge, self._tracing = charge, tracing

    async def __call__(self, finished: Sequence[Received[AppointmentFinished]]) -> Sequence[Charged]:
        with self._tracing.charging(finished) as report:
            outcomes = await self._charge(finished)
            report(outcomes)
            return outcomes


class TracedDeadLetters(DeadLetters):
    """Adds dead letters in the traces that they came from."""

    def __init__(self, letters: DeadLetters, tracing: Tracing) -> None:
        self._letters, self._tracing = letters, tracing

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        await self._letters.add(letters)
        self._tracing.dead_lettered(letters)

    async def get(self, position: str) -> DeadLetter:
        return await self._letters.get(position)

    async def page(self, matching: DeadLetterFilter, limit: int, after: str = "") -> Sequence[DeadLetter]:
        return await self._letters.page(matching, limit, after)

    async def groups(self) -> Sequence[LetterGroup]:
        return await self._letters.groups()

    async def record(self, letter: DeadLetter, entry: HistoryEntry) -> None:
        await self._letters.record(letter, entry)


def decode(key: bytes | None, headers: cloudevents.Headers, value: bytes | None) -> Message:
    """The message in a dead letter. What happens to it from now on belongs to the trace that it came from."""
    message = cloudevents.message(key, headers, value)
    context = _context(message, headers)
    _carry([(about(message), context)] if context else [])
    return message


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


def _context(message: Message, headers: cloudevents.Headers = ()) -> TraceContext | None:
    """The one that is kept with the event, or else that of the hop: a foreign producer's, perhaps.

    Most often there is none, and a batch has five hundred messages: this is asked for each.
    """
    for name, _ in message.extensions:
        if name == PARENT:
            return trace_context.of_attributes(message.extensions)
    for name, _ in headers:
        if name == PARENT:
            texts = [(name, (content or b"").decode("latin-1")) for name, content in headers]
            return trace_context.of_attributes(texts)
    return None


def _contexts(batch: Sequence[Delivery]) -> Iterable[tuple[str, TraceContext]]:
    for delivery in batch:
        if context := _context(delivery.message, delivery.headers):
            yield about(delivery.message), context
            yield delivery.origin.position, context


def _carry(contexts: Iterable[tuple[str, TraceContext]]) -> Mapping[str, TraceContext]:
    """From now on, these are in hand."""
    carried = dict(contexts)
    trace_context.carried.set(carried)
    return carried


def _nothing(_: Sequence[Charged]) -> None:
    return
