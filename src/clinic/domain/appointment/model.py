"""An appointment and its decisions. Dates are aware UTC in whole seconds, the price is per hour."""

from datetime import datetime
from typing import Self
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from clinic.domain.events import AppointmentFinished
from clinic.domain.money import Money


class Appointment(Struct, frozen=True, kw_only=True):
    """A patient sees a physician. It starts once, at a price that stays, and finishes once.

    `version` counts its saves: of two people who change it at once, the second gets a conflict.
    """

    id: UUID
    physician_id: UUID
    patient_id: UUID
    price: Money
    start: datetime
    end: datetime | None = None
    version: int = 1

    @classmethod
    def started(cls, *, id: UUID, physician_id: UUID, patient_id: UUID, price: Money, now: datetime) -> Self:  # noqa: A002 — the field's own name
        """A new appointment that starts now, cut to the whole second: what is printed is what is charged."""
        return cls(
            id=id,
            physician_id=physician_id,
            patient_id=patient_id,
            price=price,
            start=now.replace(microsecond=0),
        )

    def finish(self, now: datetime) -> tuple[Self, AppointmentFinished | None]:
        """The appointment with its end, and the event of it; no event if it ended before.

        It never ends before it starts: with a clock that is behind, the end is the start.
        """
        if self.end is not None:
            return self, None
        finished = replace(self, end=max(now.replace(microsecond=0), self.start))
        return finished, finished.finished_event

    @property
    def finished_event(self) -> AppointmentFinished | None:
        """The event that it is over, always the same one; None while it is not."""
        if self.end is None:
            return None
        return AppointmentFinished(
            appointment_id=self.id,
            physician_id=self.physician_id,
            patient_id=self.patient_id,
            price=self.price,
            start=self.start,
            end=self.end,
        )
