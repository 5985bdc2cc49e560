"""Adapters that break one promise each, for whole services: the campaign must see it. See
test_planted_defects.

Each stands above the failpoints, where an adapter's own mistakes would be: what the store refuses, it
hears.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, Final, NamedTuple
from uuid import UUID

from msgspec.structs import replace

from clinic.domain.appointment.model import Appointment
from clinic.domain.errors import ClinicError, Conflict, Unavailable
from clinic.domain.financial.model import Charge
from clinic.domain.financial.ports import AddResult
from clinic.domain.messaging.dead_letters import DeadLetter
from clinic.domain.messaging.messages import ClaimedMessage, Delivery, Message, PublishResult
from clinic.domain.money import Money


class Broken:
    """Keeps every promise but one."""

    def __init__(self, adapter: Any, file: Any) -> None:
        self._adapter = adapter
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)


class ForgetsTheKey(Broken):
    async def add(self, appointment: Appointment, *, once: bytes = b"") -> Appointment:  # noqa: ARG002 — broken on purpose
        return await self._adapter.add(appointment)  # type: ignore[no-any-return]


class AcknowledgesBeforeSaving(Broken):
    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        self._late = asyncio.create_task(self._save_later(appointment, events))
        return appointment

    async def _save_later(self, appointment: Appointment, events: Sequence[Message]) -> None:
        await asyncio.sleep(0.02)
        with suppress(ClinicError):
            await self._adapter.save(appointment, *events)


class SwallowsAnUnsafeWrite(Broken):
    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        with suppress(Unavailable):
            return await self._adapter.save(appointment, *events)  # type: ignore[no-any-return]
        return appointment


class AnswersAConflictWithSuccess(Broken):
    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        with suppress(Conflict):
            return await self._adapter.save(appointment, *events)  # type: ignore[no-any-return]
        return appointment


class ForgetsTheEnd(Broken):
    """So that it is finished anew, with another end, whenever somebody asks for that again."""

    async def get(self, appointment_id: UUID) -> Appointment:
        return replace(await self._adapter.get(appointment_id), end=None)  # type: ignore[no-any-return]


class ForgetsWhenItsLeaseEnds(Broken):
    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        return [replace(each, expires_at=inf) for each in await self._adapter.claim(limit)]


class LosesTheEvent(Broken):
    """Every tenth save stores the state without its event."""

    saves = 0

    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        self.saves += 1
        return await self._adapter.save(appointment, *(events if self.saves % 10 else ()))  # type: ignore[no-any-return]


class IgnoresItsLease(Broken):
    """Promises a minute, but the store's lease is as short as may be: another relay gets the event, too."""

    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        expires_at = monotonic() + 60
        return [replace(each, expires_at=expires_at) for each in await self._adapter.claim(limit)]


class ForgetsTheWholeOutbox(Broken):
    async def confirm(self, published: Sequence[PublishResult]) -> None:
        await self._adapter.confirm(published)
        await self._file.write(lambda connection: connection.execute("DELETE FROM outbox"))


class ConfirmsBeforePublishing(Broken):
    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        claimed: Sequence[ClaimedMessage] = await self._adapter.claim(limit)
        await self._adapter.confirm(
            [
                PublishResult(each.message, "nowhere", each.message.time)
                for each in claimed
                if each.message.time
            ]
        )
        return claimed


class DropsOneOfABatch(Broken):
    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        published: Sequence[PublishResult] = await self._adapter.publish(batch[1:] or batch)
        return (
            published
            if len(published) == len(batch)
            else [replace(published[0], message=batch[0]), *published]
        )


class CommitsBeforeCharging(Broken):
    async def receive(self) -> Sequence[Delivery]:
        batch: Sequence[Delivery] = await self._adapter.receive()
        await self._adapter.acknowledge(batch)
        return batch

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        pass


class KeepsPlacesWithoutTheLogsId(Broken):
    """Whatever log is there, its place is taken to be in it."""

    _place = 0

    async def receive(self) -> Sequence[Delivery]:
        while True:
            batch: Sequence[Delivery] = await self._adapter.receive()
            if beyond := [each for each in batch if _seq(each) > self._place]:
                return beyond
            await self._adapter.acknowledge(batch)

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        await self._adapter.acknowledge(batch)
        self._place = _seq(batch[-1])


def _seq(delivery: Delivery) -> int:
    return int(delivery.origin.position.rpartition("/")[2])


class CommitsOnePartition(Broken):
    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        held = self._adapter._held  # noqa: SLF001 — broken on purpose, on the inside
        if held is not None:
            last = int(batch[-1].origin.position.split("/")[-2])
            held.revoked.update(set(range(100)) - {last})
        await self._adapter.acknowledge(batch)


class ChargesAgain(Broken):
    """The newest event makes the charge, as if there were none."""

    async def add(self, charges: Sequence[Charge]) -> AddResult:
        ids = [(each.appointment_id.bytes,) for each in charges]
        await self._file.write(
            lambda connection: connection.executemany("DELETE FROM charges WHERE appointment_id = ?", ids)
        )
        return await self._adapter.add(charges)  # type: ignore[no-any-return]


class RoundsDown(Broken):
    async def add(self, charges: Sequence[Charge]) -> AddResult:
        totals = [Money.of_cents(int(each.price.cents * each.hours)) for each in charges]
        rounded = [replace(each, total=total) for each, total in zip(charges, totals, strict=True)]
        return await self._adapter.add(rounded)  # type: ignore[no-any-return]


class SaysNewOfWhatIsKnown(Broken):
    async def add(self, charges: Sequence[Charge]) -> AddResult:
        await self._adapter.add(charges)
        return AddResult(list(charges), [])


class HidesTheEndOfAThread(Broken):
    """Nobody hears of it: neither readiness nor the service asks any more."""

    def __init__(self, adapter: Any, file: Any) -> None:
        super().__init__(adapter, file)
        file.check_alive = lambda: None


class ForgetsDeadLetters(Broken):
    async def add(self, letters: Sequence[DeadLetter]) -> None:
        pass


class FailsWithItsLog(Broken):
    """Writes a line before it gets an event, and lets its caller know when that fails."""

    def __call__(self, event: str, /, **details: object) -> None:
        os.write(2, b"\n")
        self._adapter(event, **details)


class Defect(NamedTuple):
    """The port that a broken adapter fills, and settings that it needs."""

    port: str
    adapter: Callable[[Any, Any], Any]
    settings: Mapping[str, str] = {}
    is_seen: bool = True
    """Whether the witness sees what it makes of the port's answers; else it knows better."""


DEFECTS: Final = {
    "key-forgotten": Defect("appointments", ForgetsTheKey),
    "acknowledge-before-saving": Defect("appointments", AcknowledgesBeforeSaving),
    "success-on-an-unsafe-write": Defect("appointments", SwallowsAnUnsafeWrite),
    "conflict-is-success": Defect("appointments", AnswersAConflictWithSuccess),
    "end-changes-on-repeat": Defect("appointments", ForgetsTheEnd),
    "publishes-past-its-lease": Defect("outbox", ForgetsWhenItsLeaseEnds, is_seen=False),
    "wrong-rounding": Defect(
        "charges", RoundsDown, {"CLINIC_PRICING": "pro-rata", "CLINIC_HOURLY_PRICE": "133.33"}
    ),
    "save-without-the-event": Defect("appointments", LosesTheEvent),
    "lease-ignored": Defect("outbox", IgnoresItsLease, {"CLINIC_LEASE": "0.1"}),
    "confirm-clears-the-outbox": Defect("outbox", ForgetsTheWholeOutbox),
    "confirm-before-publishing": Defect("outbox", ConfirmsBeforePublishing),
    "publish-drops-one": Defect("publisher", DropsOneOfABatch),
    "commit-before-charging": Defect("subscription", CommitsBeforeCharging),
    "place-without-the-logs-id": Defect("subscription", KeepsPlacesWithoutTheLogsId),
    "one-partition-committed": Defect("subscription", CommitsOnePartition),
    "charge-not-idempotent": Defect("charges", ChargesAgain),
    "known-charges-called-new": Defect("charges", SaysNewOfWhatIsKnown),
    "dead-letters-forgotten": Defect("dead_letters", ForgetsDeadLetters),
    "thread-ends-unheard": Defect("charges", HidesTheEndOfAThread),
    "log-kills-the-loop": Defect("telemetry", FailsWithItsLog),
}
