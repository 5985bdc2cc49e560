"""A charge: what an appointment costs, and what explains it."""

from datetime import datetime
from fractions import Fraction
from typing import Annotated, NamedTuple, Self
from uuid import UUID

from msgspec import Meta, Struct

from clinic.domain.events import AppointmentFinished
from clinic.domain.financial.pricing import Pricing
from clinic.domain.messaging.messages import Origin, Received
from clinic.domain.money import Money


class ChargeCursor(NamedTuple):
    """The place of a charge in the list of all charges."""

    charged_at: Annotated[datetime, Meta(tz=True)]
    appointment_id: UUID


class Charge(Struct, frozen=True, kw_only=True):
    """One for each finished appointment, for ever.

    Start and end are in whole seconds, `charged_at` in milliseconds, all UTC. `pricing` names the policy
    that made `hours` and `total`; `origin` says where the event came from.
    """

    appointment_id: UUID
    physician_id: UUID
    patient_id: UUID
    price: Money
    start: datetime
    end: datetime
    pricing: str
    hours: Fraction
    total: Money
    charged_at: datetime
    origin: Origin

    @classmethod
    def for_finished(cls, received: Received[AppointmentFinished], pricing: Pricing, now: datetime) -> Self:
        """What this appointment costs under this policy."""
        event = received.event
        hours = pricing.hours(event.end - event.start)
        return cls(
            appointment_id=event.appointment_id,
            physician_id=event.physician_id,
            patient_id=event.patient_id,
            price=event.price,
            start=event.start,
            end=event.end,
            pricing=pricing.name,
            hours=hours,
            total=event.price * hours,
            charged_at=now,
            origin=received.origin,
        )

    @property
    def cursor(self) -> ChargeCursor:
        return ChargeCursor(self.charged_at, self.appointment_id)

    def agrees_with(self, other: "Charge") -> bool:
        """Whether both charge the same: price, start and end."""
        return (self.price, self.start, self.end) == (other.price, other.start, other.end)
