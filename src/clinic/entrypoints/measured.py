"""Ports that measure what passes through them, for the relay and the consumer: the domain does not know."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from uuid import UUID

import prometheus_client

from clinic.domain.errors import NotNow
from clinic.domain.events import AppointmentFinished
from clinic.domain.financial.model import Charge
from clinic.domain.financial.ports import Charges
from clinic.domain.financial.use_cases import ChargeAppointments, Charged, FindCharge
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetters
from clinic.domain.messaging.messages import (
    ClaimedMessage,
    Delivery,
    Message,
    PublicationStatus,
    PublishResult,
    Received,
)
from clinic.domain.messaging.ports import Clock, Monotonic, Outbox, Publisher, Subscription, Waiting
from clinic.entrypoints.forwarding import ForwardingDeadLetters
from clinic.entrypoints.metrics import AppointmentMetrics, FinancialMetrics


@contextmanager
def _counting_retries(retries: prometheus_client.Counter, cause: str) -> Iterator[None]:
    try:
        yield
    except NotNow:
        retries.labels(cause).inc()
        raise


class MeasuredOutbox(Outbox):
    """Counts what the relay has to repeat, and what it claims later than a lease after its save."""

    def __init__(self, outbox: Outbox, metrics: AppointmentMetrics, clock: Clock, lease: float) -> None:
        self._outbox = outbox
        self._retries = metrics.retries
        self._late = metrics.late_claims
        self._clock, self._lease = clock, timedelta(seconds=lease)

    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        with _counting_retries(self._retries, "claim"):
            claimed = await self._outbox.claim(limit)
        saved_before = self._clock() - self._lease
        if late := sum(event.saved_at < saved_before for event in claimed):
            self._late.inc(late)
        return claimed

    async def confirm(self, published: Sequence[PublishResult]) -> None:
        with _counting_retries(self._retries, "confirm"):
            await self._outbox.confirm(published)

    async def oldest(self) -> datetime | None:
        return await self._outbox.oldest()

    async def waiting(
        self, limit: int, before: datetime | None = None, after: Waiting | None = None
    ) -> Sequence[Waiting]:
        return await self._outbox.waiting(limit, before, after)

    async def count(self, limit: int) -> int:
        return await self._outbox.count(limit)

    async def status(self, event: Message) -> PublicationStatus | None:
        return await self._outbox.status(event)


class MeasuredPublisher(Publisher):
    """Times each batch."""

    def __init__(self, publisher: Publisher, metrics: AppointmentMetrics, monotonic: Monotonic) -> None:
        self._publisher = publisher
        self._metrics = metrics
        self._monotonic = monotonic

    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        began = self._monotonic()
        with _counting_retries(self._metrics.retries, "publish"):
            published = await self._publisher.publish(batch)
        self._metrics.publish_duration.observe(self._monotonic() - began)
        self._metrics.publish_size.observe(len(batch))
        return published


class MeasuredSubscription(Subscription):
    """Knows the batch in hand: when its messages were saved and published."""

    def __init__(self, subscription: Subscription, metrics: FinancialMetrics, clock: Clock) -> None:
        self._subscription = subscription
        self._metrics = metrics
        self._clock = clock
        self._held: Sequence[Delivery] = ()
        self._messages: dict[str, Message] = {}

    async def receive(self) -> Sequence[Delivery]:
        with _counting_retries(self._metrics.retries, "receive"):
            batch = await self._subscription.receive()
        self._held = batch
        self._messages = {delivery.origin.position: delivery.message for delivery in batch}
        if batch:
            self._metrics.batch_size.observe(len(batch))
        return batch

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        with _counting_retries(self._metrics.retries, "acknowledge"):
            await self._subscription.acknowledge(batch)
        self._held = ()

    def held_seconds(self) -> float:
        """How long ago the oldest message in hand was published."""
        if not self._held:
            return 0.0
        oldest = min(delivery.origin.published_at for delivery in self._held)
        return max(0.0, (self._clock() - oldest).total_seconds())

    def recorded(self, position: str) -> str | None:
        """When the message at this position was saved, as its producer wrote it."""
        message = self._messages.get(position)
        return dict(message.extensions).get("recordedtime") if message else None


class MeasuredCharging:
    """Times each batch, and each new charge from the save of its finish."""

    def __init__(
        self,
        charge: ChargeAppointments,
        subscription: MeasuredSubscription,
        metrics: FinancialMetrics,
        clock: Clock,
        monotonic: Monotonic,
    ) -> None:
        self._charge = charge
        self._subscription = subscription
        self._metrics = metrics
        self._clock, self._monotonic = clock, monotonic

    async def __call__(self, finished: Sequence[Received[AppointmentFinished]]) -> Sequence[Charged]:
        began = self._monotonic()
        with _counting_retries(self._metrics.retries, "charge"):
            outcomes = await self._charge(finished)
        self._metrics.handling_duration.observe(self._monotonic() - began)
        recorded = self._subscription.recorded
        self._observe(
            recorded(received.origin.position)
            for received, charged in zip(finished, outcomes, strict=True)
            if charged.outcome == "charged"
        )
        return outcomes

    def _observe(self, saves: Iterator[str | None]) -> None:
        now = self._clock()
        for recorded, times in Counter(saves).items():
            try:
                seconds = (now - datetime.fromisoformat(recorded or "")).total_seconds()
            except (TypeError, ValueError):  # a foreign producer's: it says nothing, or no moment
                continue
            self._metrics.time_to_charge.observe(max(0.0, seconds), times=times)


class MeasuredDeadLetters(ForwardingDeadLetters):
    """Counts what is added, by code."""

    def __init__(self, letters: DeadLetters, metrics: FinancialMetrics) -> None:
        super().__init__(letters)
        self._metrics = metrics

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        with _counting_retries(self._metrics.retries, "dead-letter"):
            await self._letters.add(letters)
        for letter in letters:
            self._metrics.dead_letter(letter.code)


class MeasuredFindCharge(FindCharge):
    """Counts who waits."""

    def __init__(self, charges: Charges, metrics: FinancialMetrics) -> None:
        super().__init__(charges)
        self._waiters = metrics.waiters

    async def __call__(self, appointment_id: UUID, timeout: float = 0) -> Charge:
        with self._waiters.track_inprogress() if timeout > 0 else nullcontext():
            return await super().__call__(appointment_id, timeout)
