"""Charges in memory."""

from collections.abc import Sequence
from uuid import UUID

from clinic.adapters.charge_waiters import ChargeLookup
from clinic.domain.financial import ports as financial
from clinic.domain.financial.model import Charge, ChargeCursor


class MemoryCharges(ChargeLookup):
    """What it holds dies with its process."""

    def __init__(self) -> None:
        super().__init__()
        self._stored: dict[UUID, Charge] = {}

    async def add(self, charges: Sequence[Charge]) -> financial.AddResult:
        added = financial.AddResult([], [])
        for charge in charges:
            if charge.appointment_id in self._stored:
                added.existing.append(self._stored[charge.appointment_id])
            else:
                self._stored[charge.appointment_id] = charge
                added.new.append(charge)
        self._waiters.notify(added)
        return added

    async def page(
        self, matching: financial.ChargeFilter, limit: int, after: ChargeCursor | None = None
    ) -> Sequence[Charge]:
        found = [
            charge
            for charge in self._stored.values()
            if matching.physician_id in (None, charge.physician_id)
            and matching.patient_id in (None, charge.patient_id)
            and (matching.charged_from is None or charge.charged_at >= matching.charged_from)
            and (matching.charged_to is None or charge.charged_at < matching.charged_to)
            and (after is None or charge.cursor < after)
        ]
        return sorted(found, key=lambda charge: charge.cursor, reverse=True)[:limit]

    async def by_appointment(self, limit: int, after: UUID | None = None) -> Sequence[Charge]:
        found = [id_ for id_ in self._stored if after is None or id_ < after]
        return [self._stored[id_] for id_ in sorted(found, reverse=True)[:limit]]

    async def count(self) -> int:
        return len(self._stored)

    async def check(self) -> None:
        return

    async def _find(self, ids: Sequence[UUID]) -> Sequence[Charge]:
        return [self._stored[id_] for id_ in ids if id_ in self._stored]
