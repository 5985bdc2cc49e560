"""Both contexts' stores in memory: the reference for every other, and the test bed. What it keeps dies with
the process.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from time import monotonic
from uuid import UUID

from msgspec.structs import replace

from clinic.adapters.charge_waiters import ChargeWaiters
from clinic.adapters.leases import Leases
from clinic.domain.appointment import ports as appointment
from clinic.domain.appointment.model import Appointment
from clinic.domain.errors import Conflict, NotFound
from clinic.domain.financial import ports as financial
from clinic.domain.financial.model import Charge, ChargeCursor
from clinic.domain.messaging.dead_letters import (
    MAX_HISTORY,
    DeadLetter,
    DeadLetterFilter,
    DeadLetters,
    HistoryEntry,
    LetterGroup,
)
from clinic.domain.messaging.messages import ClaimedMessage, Message, PublicationStatus, PublishResult
from clinic.domain.messaging.ports import Clock, Monotonic, Outbox


class MemoryAppointments(appointment.Appointments, Outbox):
    """Appointments and their outbox."""

    def __init__(self, clock: Clock, lease: float, monotonic: Monotonic = monotonic) -> None:
        self._clock = clock
        self._kept: dict[UUID, Appointment] = {}
        self._outbox: dict[str, tuple[datetime, Message]] = {}
        self._published: dict[str, PublicationStatus] = {}
        self._leases = Leases(lease, monotonic)

    async def add(self, appointment: Appointment) -> None:
        if appointment.id in self._kept:
            raise Conflict(f"appointment {appointment.id} is known already")
        self._kept[appointment.id] = appointment

    async def get(self, appointment_id: UUID) -> Appointment:
        try:
            return self._kept[appointment_id]
        except KeyError:
            raise NotFound(f"there is no appointment {appointment_id}") from None

    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        kept = self._kept.get(appointment.id)
        if kept is None or kept.version != appointment.version:
            raise Conflict(f"appointment {appointment.id} was saved by somebody else meanwhile")
        saved = self._kept[appointment.id] = replace(appointment, version=appointment.version + 1)
        for event in events:
            self._outbox.setdefault(event.id, (self._clock(), event))
        self._leases.wake()
        return saved

    async def page(
        self, matching: appointment.AppointmentFilter, limit: int, after: UUID | None = None
    ) -> Sequence[Appointment]:
        found = [
            each
            for each in self._kept.values()
            if matching.physician_id in (None, each.physician_id)
            and matching.patient_id in (None, each.patient_id)
            and matching.finished in (None, each.end is not None)
            and (after is None or each.id < after)
        ]
        return sorted(found, key=lambda each: each.id, reverse=True)[:limit]

    async def check(self) -> None:
        return

    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        return await self._leases.claim(self._unpublished, limit)

    async def confirm(self, published: Sequence[PublishResult]) -> None:
        for each in published:
            if each.message.id in self._outbox:
                saved_at, _ = self._outbox.pop(each.message.id)
                self._published[each.message.id] = PublicationStatus(saved_at, each.at, each.position)
        self._leases.release(each.message.id for each in published)

    async def oldest(self) -> datetime | None:
        return min((saved_at for saved_at, _ in self._outbox.values()), default=None)

    async def status(self, event: Message) -> PublicationStatus | None:
        if event.id in self._outbox:
            return PublicationStatus(self._outbox[event.id][0])
        return self._published.get(event.id)

    async def _unpublished(self, limit: int) -> Sequence[Message]:
        return [message for _, message in self._outbox.values()][:limit]


class MemoryCharges(financial.Charges):
    """Charges."""

    def __init__(self) -> None:
        self._kept: dict[UUID, Charge] = {}
        self._waiters = ChargeWaiters(self._find)

    async def add(self, charges: Sequence[Charge]) -> financial.AddResult:
        added = financial.AddResult([], [])
        for charge in charges:
            if charge.appointment_id in self._kept:
                added.existing.append(self._kept[charge.appointment_id])
            else:
                self._kept[charge.appointment_id] = charge
                added.new.append(charge)
        self._waiters.notify(added)
        return added

    async def get(self, appointment_id: UUID) -> Charge:
        try:
            return self._kept[appointment_id]
        except KeyError:
            raise NotFound(f"appointment {appointment_id} has no charge yet") from None

    async def wait_for(self, appointment_id: UUID, timeout: float) -> Charge:
        return await self._waiters.wait(appointment_id, timeout)

    async def page(
        self, matching: financial.ChargeFilter, limit: int, after: ChargeCursor | None = None
    ) -> Sequence[Charge]:
        found = [
            each
            for each in self._kept.values()
            if matching.physician_id in (None, each.physician_id)
            and matching.patient_id in (None, each.patient_id)
            and (matching.charged_from is None or each.charged_at >= matching.charged_from)
            and (matching.charged_to is None or each.charged_at < matching.charged_to)
            and (after is None or each.cursor < after)
        ]
        return sorted(found, key=lambda each: each.cursor, reverse=True)[:limit]

    async def by_appointment(self, limit: int, after: UUID | None = None) -> Sequence[Charge]:
        return [
            self._kept[each] for each in sorted(self._kept, reverse=True) if after is None or each < after
        ][:limit]

    async def count(self) -> int:
        return len(self._kept)

    async def check(self) -> None:
        return

    async def _find(self, ids: Sequence[UUID]) -> Sequence[Charge]:
        return [self._kept[each] for each in ids if each in self._kept]


class MemoryDeadLetters(DeadLetters):
    """Dead letters, and beside them the entries of their histories."""

    def __init__(self) -> None:
        self._kept: dict[str, DeadLetter] = {}
        self._history: dict[str, list[HistoryEntry]] = {}

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            known = self._kept.get(letter.position)
            self._kept[letter.position] = known.arrived_again(letter) if known else letter

    async def get(self, position: str) -> DeadLetter:
        try:
            letter = self._kept[position]
        except KeyError:
            raise NotFound(f"there is no dead letter at {position}") from None
        return replace(letter, history=tuple(self._history.get(position, ())[-MAX_HISTORY:]))

    async def page(self, matching: DeadLetterFilter, limit: int, after: str = "") -> Sequence[DeadLetter]:
        found = [
            each
            for each in self._kept.values()
            if matching.state in (None, each.state)
            and matching.group in (None, each.group)
            and matching.about in (None, each.about)
            and matching.message_id in (None, each.message_id)
            and each.position > after
        ]
        return [each.listed() for each in sorted(found, key=lambda each: each.position)[:limit]]

    async def groups(self) -> Sequence[LetterGroup]:
        names = sorted({each.group for each in self._kept.values()})
        return [_group(name, [each for each in self._kept.values() if each.group == name]) for name in names]

    async def record(self, letter: DeadLetter, entry: HistoryEntry) -> None:
        kept = await self.get(letter.position)
        if kept.entries != letter.entries:
            raise Conflict(f"the dead letter at {letter.position} was handled by somebody else meanwhile")
        self._history.setdefault(letter.position, []).append(entry)
        self._kept[letter.position] = replace(kept.with_entry(entry), history=())


def _group(name: str, letters: Sequence[DeadLetter]) -> LetterGroup:
    states = Counter(each.state for each in letters)
    return LetterGroup(
        group=name,
        waiting=states["waiting"],
        replayed=states["replayed"],
        discarded=states["discarded"],
        reason=min(each.reason for each in letters),
        first_seen=min(each.first_seen for each in letters),
        last_seen=max(each.last_seen for each in letters),
    )
