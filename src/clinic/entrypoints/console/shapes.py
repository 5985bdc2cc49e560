"""What the services answer, as far as a page shows it. Times are UTC, without a zone."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from clinic.domain.money import Money


class Appointment(Struct, frozen=True):
    """`end_date` is None while it is open."""

    id: UUID
    start_date: datetime
    end_date: datetime | None
    physician_id: UUID
    patient_id: UUID
    price: Money


class Charge(Struct, frozen=True):
    """What an appointment costs."""

    appointment_id: UUID
    total_price: Money


class Health(Struct, frozen=True):
    """What a service says of itself: a reason or "ok" by name."""

    status: str
    checks: Mapping[str, str]
    oldest_unpublished_seconds: float | None = None
