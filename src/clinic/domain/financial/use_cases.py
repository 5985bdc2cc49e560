"""What accounting does."""

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

from msgspec import Struct

from clinic.domain.errors import NotFound
from clinic.domain.events import AppointmentFinished
from clinic.domain.financial.model import Charge, Place
from clinic.domain.financial.ports import Charges, Wanted
from clinic.domain.financial.pricing import Pricing
from clinic.domain.messaging.messages import Told
from clinic.domain.messaging.ports import Clock, Notices
from clinic.domain.money import Money


class Charged(Struct, frozen=True):
    """What became of a finished appointment, and the total of the charge that stands."""

    what: Literal["charged", "already charged", "differs from its charge"]
    total: Money


class ChargeAppointments:
    """Charge every finished appointment exactly once: the first charge stays as it is for ever. Tells what became of each.

    Raises `Refused` where one of them cannot be charged; `Unavailable` when the outcome is unknown: repeating is safe.
    """

    def __init__(self, charges: Charges, pricing: Pricing, clock: Clock, notices: Notices) -> None:
        self._charges, self._pricing, self._clock, self._notices = charges, pricing, clock, notices

    async def __call__(self, finished: Sequence[Told[AppointmentFinished]]) -> Sequence[Charged]:
        now = self._clock()
        charges = [Charge.for_finished(told, self._pricing, now) for told in finished]
        added = await self._charges.add(charges)
        new = {charge.appointment_id: charge for charge in added.new}
        standing = new | {charge.appointment_id: charge for charge in added.standing}
        outcomes = []
        for charge, told in zip(charges, finished, strict=True):
            is_new = new.pop(charge.appointment_id, None) is not None
            outcomes.append(_charged(charge, None if is_new else standing[charge.appointment_id]))
            self._report(outcomes[-1], told.fact)
        return outcomes

    def _report(self, outcome: Charged, fact: AppointmentFinished) -> None:
        self._notices(outcome.what, event_id=str(fact.id), appointment_id=str(fact.appointment_id), total=str(outcome.total))


class ForeseeCharges:
    """Tell what would become of finished appointments if they were charged now; charges nothing.

    Raises `Refused` where one of them cannot be charged, and `Unavailable`.
    """

    def __init__(self, charges: Charges, pricing: Pricing, clock: Clock) -> None:
        self._charges, self._pricing, self._clock = charges, pricing, clock

    async def __call__(self, finished: Sequence[Told[AppointmentFinished]]) -> Sequence[Charged]:
        now = self._clock()
        charges = [Charge.for_finished(told, self._pricing, now) for told in finished]
        return [_charged(charge, await self._standing(charge.appointment_id)) for charge in charges]

    async def _standing(self, appointment_id: UUID) -> Charge | None:
        try:
            return await self._charges.get(appointment_id)
        except NotFound:
            return None


def _charged(charge: Charge, standing: Charge | None) -> Charged:
    if standing is None:
        return Charged("charged", charge.total)
    return Charged("already charged" if charge.agrees_with(standing) else "differs from its charge", standing.total)


class FindCharge:
    """Show the charge of an appointment, waiting up to so many seconds for it. Raises `NotFound`."""

    def __init__(self, charges: Charges) -> None:
        self._charges = charges

    async def __call__(self, appointment_id: UUID, within: float = 0) -> Charge:
        if within > 0:
            return await self._charges.arrived(appointment_id, within)
        return await self._charges.get(appointment_id)


class ListCharges:
    """Show the charges, the newest first, a page at a time."""

    def __init__(self, charges: Charges) -> None:
        self._charges = charges

    async def __call__(self, wanted: Wanted, limit: int, after: Place | None = None) -> Sequence[Charge]:
        return await self._charges.page(wanted, limit, after)
