"""What the front desk does."""

from collections.abc import Callable, Sequence
from uuid import UUID

from clinic.domain.appointment.model import Appointment
from clinic.domain.appointment.ports import Appointments, Wanted
from clinic.domain.errors import Conflict
from clinic.domain.events import seal
from clinic.domain.messaging import Clock, Notices
from clinic.domain.money import Money

TRIES = 5


class StartAppointment:
    """Start an appointment now, at the clinic's price per hour."""

    def __init__(self, appointments: Appointments, clock: Clock, new_id: Callable[[], UUID], hourly_price: Money) -> None:
        self._appointments, self._clock, self._new_id, self._hourly_price = appointments, clock, new_id, hourly_price

    async def __call__(self, physician_id: UUID, patient_id: UUID) -> Appointment:
        appointment = Appointment.started(
            id=self._new_id(),
            physician_id=physician_id,
            patient_id=patient_id,
            price=self._hourly_price,
            now=self._clock(),
        )
        await self._appointments.add(appointment)
        return appointment


class FinishAppointment:
    """Finish an appointment now; it will be charged exactly once. Finishing it again changes nothing.

    Raises `NotFound`. Raises `Unavailable` when the outcome is unknown: finishing it again is safe.
    """

    def __init__(self, appointments: Appointments, clock: Clock, notices: Notices) -> None:
        self._appointments, self._clock, self._notices = appointments, clock, notices

    async def __call__(self, appointment_id: UUID) -> Appointment:
        for _ in range(TRIES):
            appointment = await self._appointments.get(appointment_id)
            finished, fact = appointment.finish(self._clock())
            if fact is None:
                return finished
            try:
                saved = await self._appointments.save(finished, seal(fact))
            except Conflict:
                continue
            self._notices("finished", event_id=str(fact.id), appointment_id=str(appointment_id))
            return saved
        raise Conflict(f"appointment {appointment_id} is being changed by others: try again")


class FindAppointment:
    """Show one appointment. Raises `NotFound`."""

    def __init__(self, appointments: Appointments) -> None:
        self._appointments = appointments

    async def __call__(self, appointment_id: UUID) -> Appointment:
        return await self._appointments.get(appointment_id)


class ListAppointments:
    """Show the appointments, the newest first, a page at a time."""

    def __init__(self, appointments: Appointments) -> None:
        self._appointments = appointments

    async def __call__(self, wanted: Wanted, limit: int, after: UUID | None = None) -> Sequence[Appointment]:
        return await self._appointments.page(wanted, limit, after)
