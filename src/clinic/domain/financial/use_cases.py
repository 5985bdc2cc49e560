"""What accounting does."""

from collections.abc import Sequence
from uuid import UUID

from clinic.domain.events import AppointmentFinished
from clinic.domain.financial.model import Charge, Place
from clinic.domain.financial.ports import Charges, Wanted
from clinic.domain.financial.pricing import Pricing
from clinic.domain.messaging import Clock, Notices, Told


class ChargeAppointments:
    """Charge every finished appointment exactly once: the first charge stays as it is for ever.

    Raises `Refused` where one of them cannot be charged; `Unavailable` when the outcome is unknown: repeating is safe.
    """

    def __init__(self, charges: Charges, pricing: Pricing, clock: Clock, notices: Notices) -> None:
        self._charges, self._pricing, self._clock, self._notices = charges, pricing, clock, notices

    async def __call__(self, finished: Sequence[Told[AppointmentFinished]]) -> None:
        now = self._clock()
        charges = [Charge.for_finished(told, self._pricing, now) for told in finished]
        added = await self._charges.add(charges)
        new = {charge.appointment_id: charge for charge in added.new}
        standing = new | {charge.appointment_id: charge for charge in added.standing}
        for charge, told in zip(charges, finished, strict=True):
            is_new = new.pop(charge.appointment_id, None) is not None
            self._report(charge, told.fact, None if is_new else standing[charge.appointment_id])

    def _report(self, charge: Charge, fact: AppointmentFinished, standing: Charge | None) -> None:
        if standing is None:
            what = "charged"
        elif charge.agrees_with(standing):
            what = "already charged"
        else:
            what = "differs from its charge"
        self._notices(what, event_id=str(fact.id), appointment_id=str(fact.appointment_id), total=str((standing or charge).total))


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
