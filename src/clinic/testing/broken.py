"""Adapters that break one promise each. The suites must see it: see tests/unit/test_contracts_can_fail.py."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import ClassVar
from uuid import UUID

from hypothesis import Phase, settings
from msgspec.structs import replace

from clinic.adapters.memory.appointments import MemoryAppointments
from clinic.adapters.memory.charges import MemoryCharges
from clinic.adapters.memory.dead_letters import MemoryDeadLetters
from clinic.adapters.memory.transport import MemoryLog, MemoryPublisher, MemorySubscription
from clinic.domain.appointment.model import Appointment
from clinic.domain.errors import Unavailable
from clinic.domain.financial.model import Charge
from clinic.domain.financial.ports import AddResult, ChargeFilter
from clinic.domain.messaging.dead_letters import DeadLetter, HistoryEntry
from clinic.domain.messaging.messages import (
    ClaimedMessage,
    Delivery,
    Message,
    PublicationStatus,
    PublishResult,
)
from clinic.domain.messaging.ports import Publisher, Subscription
from clinic.testing.appointments import AppointmentsContract
from clinic.testing.builders import now
from clinic.testing.charges import ChargesContract
from clinic.testing.dead_letters import DeadLettersContract
from clinic.testing.outbox import SOON
from clinic.testing.subject import MANY, Ends, Store
from clinic.testing.transports import TransportContract


class LosesAnEvent(MemoryAppointments):
    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        return await super().save(appointment, *events[:-1])


class AddsTwice(MemoryAppointments):
    async def add(self, appointment: Appointment, *, once: bytes = b"") -> Appointment:
        return await super().add(appointment, once=once and appointment.id.bytes)


class ReturnsItAsItIs(MemoryAppointments):
    async def add(self, appointment: Appointment, *, once: bytes = b"") -> Appointment:
        return await self.get((await super().add(appointment, once=once)).id)


class LosesExtensions(MemoryAppointments):
    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        return await super().save(appointment, *(replace(event, extensions=()) for event in events))


class MisdatesASave(MemoryAppointments):
    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        return [replace(each, saved_at=now() + SOON) for each in await super().claim(limit)]


class KeepsEventsOfAConflict(MemoryAppointments):
    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        self._outbox.update({event.id: (now(), event) for event in events})
        return await super().save(appointment, *events)


class LetsTheLastWriterWin(MemoryAppointments):
    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        return await super().save(await self.get(appointment.id), *events)


class HandsOneEventToTwo(MemoryAppointments):
    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        claimed = await super().claim(limit)
        self._leases.release(each.message.id for each in claimed)
        return claimed


class ForgetsTheWholeOutbox(MemoryAppointments):
    async def confirm(self, published: Sequence[PublishResult]) -> None:
        await super().confirm(published)
        self._outbox.clear()


class NeverHandsOverAgain(MemoryAppointments):
    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        claimed = await super().claim(limit)
        await self.confirm([PublishResult(each.message, "", now()) for each in claimed])
        return claimed


class Backwards(MemoryAppointments):
    async def _unpublished(self, limit: int) -> Sequence[tuple[datetime, Message]]:
        return (await super()._unpublished(1000))[::-1][:limit]


class SleepsThroughASave(MemoryAppointments):
    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        waited_for, self._leases._saved = self._leases._saved, asyncio.Event()  # noqa: SLF001 — broken on purpose
        try:
            return await super().save(appointment, *events)
        finally:
            self._leases._saved = waited_for  # noqa: SLF001 — broken on purpose


class ForgetsWhatItPublished(MemoryAppointments):
    async def status(self, event: Message) -> PublicationStatus | None:
        return await super().status(event) if event.id in self._outbox else None


class RestsOnTheFirstSave(MemoryAppointments):
    async def status(self, event: Message) -> PublicationStatus | None:
        return self._published.get(event.id) or await super().status(event)


class ConfusesTwoEvents(MemoryAppointments):
    async def status(self, event: Message) -> PublicationStatus | None:
        known = [message for _, message in self._outbox.values()]
        return await super().status(next((each for each in known if each.subject == event.subject), event))


class StartsOverAtEachPage(MemoryCharges):
    async def by_appointment(self, limit: int, after: UUID | None = None) -> Sequence[Charge]:  # noqa: ARG002 — broken on purpose
        return await self.page(ChargeFilter(), limit)


class Overwrites(MemoryCharges):
    async def add(self, charges: Sequence[Charge]) -> AddResult:
        self._stored.update({charge.appointment_id: charge for charge in charges})
        return await super().add(charges)


class NeverWakes(MemoryCharges):
    async def wait_for(self, appointment_id: UUID, within: float) -> Charge:
        await asyncio.sleep(2 * within)
        return await self.get(appointment_id)


class ForgetsTheFirstSight(MemoryDeadLetters):
    async def add(self, letters: Sequence[DeadLetter]) -> None:
        self._stored.update({letter.position: letter for letter in letters})


class CountsARetryAgain(MemoryDeadLetters):
    async def add(self, letters: Sequence[DeadLetter]) -> None:
        known = {
            each.position: self._stored[each.position].attempts
            for each in letters
            if each.position in self._stored
        }
        await super().add(letters)
        for position, attempts in known.items():
            self._stored[position] = replace(self._stored[position], attempts=attempts + 1)


class ForgetsTheState(MemoryDeadLetters):
    """Its process dies between the entry and the state, and nothing completes it."""

    async def record(self, letter: DeadLetter, entry: HistoryEntry) -> None:
        await super().record(letter, entry)
        self._stored[letter.position] = replace(self._stored[letter.position], state=letter.state)


class WaitsAnewWhenItArrivesAgain(MemoryDeadLetters):
    async def add(self, letters: Sequence[DeadLetter]) -> None:
        await super().add(letters)
        self._stored.update(
            {each.position: replace(self._stored[each.position], state="waiting") for each in letters}
        )


class RecordsOverAnother(MemoryDeadLetters):
    async def record(self, letter: DeadLetter, entry: HistoryEntry) -> None:
        await super().record(replace(letter, entries=(await self.get(letter.position)).entries), entry)


class Doubles(MemoryPublisher):
    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        await super().publish(batch)
        return await super().publish(batch)


class Drops(MemoryPublisher):
    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        published = await super().publish(batch)
        self._log.entries.pop()
        return published


class Reorders(MemoryPublisher):
    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        return (await super().publish(batch[::-1]))[::-1]


class AcknowledgesTooEarly(MemorySubscription):
    async def receive(self) -> Sequence[Delivery]:
        batch = await super().receive()
        await self.acknowledge(batch)
        return batch


class NeverAcknowledges(MemorySubscription):
    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        pass


class StartsAtTheEnd(MemorySubscription):
    async def receive(self) -> Sequence[Delivery]:
        self._log.offsets.setdefault(self._group, len(self._log.entries))
        return await super().receive()


class Deduplicates(MemoryPublisher):
    """As a broker with a window for message ids does."""

    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        known = {
            message.id: f"{self._log.id}/{index}" for index, (_, message) in enumerate(self._log.entries)
        }
        answers = {
            each.message.id: each for each in await super().publish([m for m in batch if m.id not in known])
        }
        return [answers.get(m.id) or PublishResult(m, known[m.id], now()) for m in batch]


class ForgetsHeaders(MemorySubscription):
    def _delivery(self, index: int) -> Delivery:
        return replace(super()._delivery(index), headers=())


class DropsExtensions(MemoryPublisher):
    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        return await super().publish([replace(message, extensions=()) for message in batch])


class RaisesOnWhatIsNotHeld(MemorySubscription):
    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        if batch and int(batch[-1].origin.position.partition("/")[2]) < self._log.offsets.get(self._group, 0):
            raise Unavailable("not held")
        await super().acknowledge(batch)


class AcknowledgesWhateverIsHeld(MemorySubscription):
    async def receive(self) -> Sequence[Delivery]:
        self._held = await super().receive()
        return self._held

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:  # noqa: ARG002 — broken on purpose
        await super().acknowledge(getattr(self, "_held", ()))


class LosesPatience(MemorySubscription):
    """With whoever holds a batch: what he acknowledges then counts for nothing."""

    async def receive(self) -> Sequence[Delivery]:
        batch = await super().receive()
        self._until = monotonic() + 0.05
        return batch

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        if monotonic() < getattr(self, "_until", 0):
            await super().acknowledge(batch)


class NamelessLog(MemoryLog):
    def __init__(self) -> None:
        super().__init__()
        self.id = "memory"


class ComesBackInSilence(MemorySubscription):
    """Its log can be away; that it is back is told by the next message only."""

    away: ClassVar[bool] = False

    async def receive(self) -> Sequence[Delivery]:
        if self.away:
            raise Unavailable("away")
        return await super().receive()


class SplitsAKey(MemorySubscription):
    """Members compete for messages, as on a queue."""

    async def receive(self) -> Sequence[Delivery]:
        batch = [(await super().receive())[0]]
        await self.acknowledge(batch)
        return batch


class AdmitsASecondMember(MemorySubscription):
    """Where its suite declares one."""


CAUGHT = settings(MANY, max_examples=150, derandomize=True, database=None, phases=[Phase.generate])


class BrokenAppointments(AppointmentsContract):
    survives = False
    several = False
    always_answers = True
    patience = 0.3
    histories = CAUGHT
    kind: ClassVar[type[MemoryAppointments]]

    @asynccontextmanager
    async def opened(self, where: Path, lease: float) -> AsyncIterator[Store]:  # noqa: ARG002 — memory is nowhere
        yield self.kind(now, lease)


class BrokenTransport(TransportContract):
    survives = False
    always_answers = True
    patience = 0.3
    histories = CAUGHT
    publishes: ClassVar[Callable[..., Publisher]] = MemoryPublisher
    subscribes: ClassVar[Callable[..., Subscription]] = MemorySubscription
    logs: ClassVar[Callable[[], MemoryLog]] = MemoryLog

    @asynccontextmanager
    async def opened(self, where: Path) -> AsyncIterator[Ends]:  # noqa: ARG002 — memory is nowhere
        log, subscribes = type(self).logs(), type(self).subscribes
        yield Ends(type(self).publishes(log, now), lambda group: nullcontext(subscribes(log, group, now)))


class TestLosesAnEvent(BrokenAppointments):
    kind = LosesAnEvent


class TestAddsTwice(BrokenAppointments):
    kind = AddsTwice


class TestReturnsItAsItIs(BrokenAppointments):
    kind = ReturnsItAsItIs


class TestLosesExtensions(BrokenAppointments):
    kind = LosesExtensions


class TestMisdatesASave(BrokenAppointments):
    kind = MisdatesASave


class TestKeepsEventsOfAConflict(BrokenAppointments):
    kind = KeepsEventsOfAConflict


class TestLetsTheLastWriterWin(BrokenAppointments):
    kind = LetsTheLastWriterWin


class TestHandsOneEventToTwo(BrokenAppointments):
    kind = HandsOneEventToTwo


class TestForgetsTheWholeOutbox(BrokenAppointments):
    kind = ForgetsTheWholeOutbox


class TestNeverHandsOverAgain(BrokenAppointments):
    kind = NeverHandsOverAgain


class TestBackwards(BrokenAppointments):
    kind = Backwards


class TestSleepsThroughASave(BrokenAppointments):
    kind = SleepsThroughASave


class TestForgetsWhatItPublished(BrokenAppointments):
    kind = ForgetsWhatItPublished


class TestRestsOnTheFirstSave(BrokenAppointments):
    kind = RestsOnTheFirstSave


class TestConfusesTwoEvents(BrokenAppointments):
    kind = ConfusesTwoEvents


class TestStartsOverAtEachPage(ChargesContract):
    survives = False
    patience = 0.3
    histories = CAUGHT

    @asynccontextmanager
    async def opened(self, where: Path) -> AsyncIterator[MemoryCharges]:  # noqa: ARG002 — memory is nowhere
        yield StartsOverAtEachPage()


class TestOverwrites(ChargesContract):
    survives = False
    patience = 0.3
    histories = CAUGHT

    @asynccontextmanager
    async def opened(self, where: Path) -> AsyncIterator[MemoryCharges]:  # noqa: ARG002 — memory is nowhere
        yield Overwrites()


class TestNeverWakes(ChargesContract):
    survives = False
    patience = 0.3
    histories = CAUGHT

    @asynccontextmanager
    async def opened(self, where: Path) -> AsyncIterator[MemoryCharges]:  # noqa: ARG002 — memory is nowhere
        yield NeverWakes()


class BrokenDeadLetters(DeadLettersContract):
    survives = False
    always_answers = True
    patience = 0.3
    histories = CAUGHT
    kind: ClassVar[type[MemoryDeadLetters]]

    @asynccontextmanager
    async def opened(self, where: Path) -> AsyncIterator[MemoryDeadLetters]:  # noqa: ARG002 — memory is nowhere
        yield self.kind()


class TestForgetsTheFirstSight(BrokenDeadLetters):
    kind = ForgetsTheFirstSight


class TestCountsARetryAgain(BrokenDeadLetters):
    kind = CountsARetryAgain


class TestForgetsTheState(BrokenDeadLetters):
    kind = ForgetsTheState


class TestWaitsAnewWhenItArrivesAgain(BrokenDeadLetters):
    kind = WaitsAnewWhenItArrivesAgain


class TestRecordsOverAnother(BrokenDeadLetters):
    kind = RecordsOverAnother


class TestDoubles(BrokenTransport):
    publishes = Doubles


class TestDrops(BrokenTransport):
    publishes = Drops


class TestReorders(BrokenTransport):
    publishes = Reorders


class TestAcknowledgesTooEarly(BrokenTransport):
    subscribes = AcknowledgesTooEarly


class TestNeverAcknowledges(BrokenTransport):
    subscribes = NeverAcknowledges


class TestStartsAtTheEnd(BrokenTransport):
    subscribes = StartsAtTheEnd


class TestDeduplicates(BrokenTransport):
    publishes = Deduplicates


class TestForgetsHeaders(BrokenTransport):
    subscribes = ForgetsHeaders


class TestDropsExtensions(BrokenTransport):
    publishes = DropsExtensions


class TestRaisesOnWhatIsNotHeld(BrokenTransport):
    subscribes = RaisesOnWhatIsNotHeld


class TestAcknowledgesWhateverIsHeld(BrokenTransport):
    subscribes = AcknowledgesWhateverIsHeld


class TestLosesPatience(BrokenTransport):
    subscribes = LosesPatience


class TestNamelessLog(BrokenTransport):
    logs = NamelessLog


class TestComesBackInSilence(BrokenTransport):
    subscribes = ComesBackInSilence

    @asynccontextmanager
    async def interrupted(self, where: Path) -> AsyncIterator[None]:  # noqa: ARG002 — memory is nowhere
        ComesBackInSilence.away = True
        yield
        ComesBackInSilence.away = False


class TestSplitsAKey(BrokenTransport):
    subscribes = SplitsAKey


class TestAdmitsASecondMember(BrokenTransport):
    one_member = True
    subscribes = AdmitsASecondMember
