"""What the financial context does."""

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

from msgspec import Struct

from clinic.domain.errors import NotFound, Unavailable
from clinic.domain.events import AppointmentFinished
from clinic.domain.financial.model import Charge, ChargeCursor
from clinic.domain.financial.ports import ChargeFilter, Charges
from clinic.domain.financial.pricing import Pricing
from clinic.domain.messaging.messages import Received
from clinic.domain.messaging.ports import Clock, Telemetry
from clinic.domain.money import Money

ChargeOutcome = Literal["charged", "already charged", "differs from its charge"]


class Charged(Struct, frozen=True):
    """What became of a finished appointment, and the total of its charge."""

    outcome: ChargeOutcome
    total: Money


class ChargeAppointments:
    """Charge every finished appointment exactly once: the first charge never changes. Returns each outcome.

    Raises `Refused` if one of them cannot be charged, and `Unavailable` when the outcome is unknown:
    repeating is safe.
    """

    def __init__(self, charges: Charges, pricing: Pricing, clock: Clock, telemetry: Telemetry) -> None:
        self._charges, self._pricing = charges, pricing
        self._clock, self._telemetry = clock, telemetry

    async def __call__(self, finished: Sequence[Received[AppointmentFinished]]) -> Sequence[Charged]:
        now = self._clock()
        charges = [Charge.for_finished(received, self._pricing, now) for received in finished]
        added = await self._charges.add(charges)
        new = {charge.appointment_id: charge for charge in added.new}
        existing = new | {charge.appointment_id: charge for charge in added.existing}
        outcomes = []
        for charge, received in zip(charges, finished, strict=True):
            is_new = new.pop(charge.appointment_id, None) is not None
            if charge.appointment_id not in existing:
                raise Unavailable(f"the charge of appointment {charge.appointment_id} cannot be read back")
            outcomes.append(_charged(charge, None if is_new else existing[charge.appointment_id]))
            self._report(outcomes[-1], received.event)
        return outcomes

    def _report(self, outcome: Charged, event: AppointmentFinished) -> None:
        self._telemetry(
            outcome.outcome,
            event_id=lambda: str(event.id),
            appointment_id=lambda: str(event.appointment_id),
            total=lambda: str(outcome.total),
        )


class PreviewCharges:
    """Return what charging finished appointments now would do; charges nothing.

    Raises `Refused` if one of them cannot be charged, and `Unavailable`.
    """

    def __init__(self, charges: Charges, pricing: Pricing, clock: Clock) -> None:
        self._charges, self._pricing = charges, pricing
        self._clock = clock

    async def __call__(self, finished: Sequence[Received[AppointmentFinished]]) -> Sequence[Charged]:
        now = self._clock()
        charges = [Charge.for_finished(received, self._pricing, now) for received in finished]
        return [_charged(each, await existing_charge(each.appointment_id, self._charges)) for each in charges]


async def existing_charge(appointment_id: UUID, charges: Charges) -> Charge | None:
    """The charge of this appointment, if it has one. Raises `Unavailable`."""
    try:
        return await charges.get(appointment_id)
    except NotFound:
        return None


def _charged(charge: Charge, existing: Charge | None) -> Charged:
    if existing is None:
        return Charged("charged", charge.total)
    return Charged(
        "already charged" if charge.agrees_with(existing) else "differs from its charge", existing.total
    )


class FindCharge:
    """Show the charge of an appointment, waiting up to `timeout` seconds for it. Raises `NotFound`."""

    def __init__(self, charges: Charges) -> None:
        self._charges = charges

    async def __call__(self, appointment_id: UUID, timeout: float = 0) -> Charge:
        if timeout > 0:
            return await self._charges.wait_for(appointment_id, timeout)
        return await self._charges.get(appointment_id)


class ListCharges:
    """Show the charges, the newest first, a page at a time."""

    def __init__(self, charges: Charges) -> None:
        self._charges = charges

    async def __call__(
        self, matching: ChargeFilter, limit: int, after: ChargeCursor | None = None
    ) -> Sequence[Charge]:
        return await self._charges.page(matching, limit, after)
