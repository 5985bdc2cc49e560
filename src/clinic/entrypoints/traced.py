"""Ports that pass a trace on: from a request to its event, and from a message to what becomes of it."""

from collections.abc import Iterable, Mapping, Sequence

from clinic.adapters import cloudevents
from clinic.domain.appointment.model import Appointment
from clinic.domain.appointment.ports import Appointments
from clinic.domain.events import AppointmentFinished
from clinic.domain.financial.dead_letters import ChargeBatch
from clinic.domain.financial.use_cases import Charged
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetters
from clinic.domain.messaging.messages import Delivery, Message, PublishResult, Received
from clinic.domain.messaging.ports import Publisher, Subscription
from clinic.entrypoints import trace_context
from clinic.entrypoints.forwarding import ForwardingAppointments, ForwardingDeadLetters
from clinic.entrypoints.trace_context import PARENT, TraceContext
from clinic.entrypoints.tracing import Tracing, about


class TracedAppointments(ForwardingAppointments):
    """Keeps the context of the request with each event."""

    def __init__(self, appointments: Appointments, tracing: Tracing) -> None:
        super().__init__(appointments)
        self._tracing = tracing

    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        with self._tracing.creating(events) as created:
            return await self._appointments.save(appointment, *created)


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


class TracedDeadLetters(ForwardingDeadLetters):
    """Adds dead letters in the traces that they came from."""

    def __init__(self, letters: DeadLetters, tracing: Tracing) -> None:
        super().__init__(letters)
        self._tracing = tracing

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        await self._letters.add(letters)
        self._tracing.dead_lettered(letters)


def decode(key: bytes | None, headers: cloudevents.Headers, value: bytes | None) -> Message:
    """The message in a dead letter. What happens to it from now on belongs to the trace that it came from."""
    message = cloudevents.message(key, headers, value)
    context = _context(message, headers)
    _carry([(about(message), context)] if context else [])
    return message


def _context(message: Message, headers: cloudevents.Headers = ()) -> TraceContext | None:
    """The one that is kept with the event, or else that of the hop: a foreign producer's, perhaps.

    Most often there is none, and a batch has hundreds of messages: this is asked for each.
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
