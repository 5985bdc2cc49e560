"""What the front desk does."""

from collections.abc import Callable, Sequence
from uuid import UUID

from clinic.domain.appointment.model import Appointment
from clinic.domain.appointment.ports import Appointments, Wanted
from clinic.domain.errors import Conflict, NotFound, Refused
from clinic.domain.events import AppointmentFinished, seal
from clinic.domain.messaging.messages import Telling
from clinic.domain.messaging.ports import Clock, Notices, Outbox
from clinic.domain.money import Money
from clinic.domain.tracing import Step, Trace

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


class ListFinished:
    """Show the news of all finished appointments, the newest id first, a page at a time."""

    def __init__(self, appointments: Appointments) -> None:
        self._appointments = appointments

    async def __call__(self, limit: int, after: UUID | None = None) -> Sequence[AppointmentFinished]:
        page = await self._appointments.page(Wanted(finished=True), limit, after)
        return [each.news for each in page if each.news]


class FindFinished:
    """Show the news of one appointment and how far it was told; None where it is not finished, or not known."""

    def __init__(self, appointments: Appointments, outbox: Outbox) -> None:
        self._appointments, self._outbox = appointments, outbox

    async def __call__(self, appointment_id: UUID) -> tuple[AppointmentFinished, Telling | None] | None:
        try:
            news = (await self._appointments.get(appointment_id)).news
        except NotFound:
            return None
        return (news, await self._outbox.told(seal(news))) if news else None


class TellAgain:
    """Put the news of a finished appointment into the outbox once more: the same event, on the way that it always takes.

    What waits there already is not told twice. Raises `NotFound`, and `Refused` where the appointment is not finished.
    Raises `Unavailable` when the outcome is unknown: telling it again is safe.
    """

    def __init__(self, appointments: Appointments, outbox: Outbox) -> None:
        self._appointments, self._outbox = appointments, outbox

    async def __call__(self, appointment_id: UUID) -> None:
        for _ in range(TRIES):
            appointment = await self._appointments.get(appointment_id)
            if appointment.news is None:
                raise Refused(f"appointment {appointment_id} is not finished: there is nothing to tell")
            fact = seal(appointment.news)
            told = await self._outbox.told(fact)
            if told and told.published_at is None:
                return
            try:
                await self._appointments.save(appointment, fact)
            except Conflict:
                continue
            return
        raise Conflict(f"appointment {appointment_id} is being changed by others: try again")


class TraceAppointment:
    """Show how far an appointment and the news of it have come. Raises `NotFound`."""

    def __init__(self, appointments: Appointments, outbox: Outbox) -> None:
        self._appointments, self._outbox = appointments, outbox

    async def __call__(self, appointment_id: UUID) -> Trace:
        appointment = await self._appointments.get(appointment_id)
        steps = [Step(what="started", at=appointment.start)]
        if appointment.news is None:
            return Trace(steps, "to be finished", "nobody has finished it yet")
        steps.append(Step(what="finished", at=appointment.news.end))
        told = await self._outbox.told(seal(appointment.news))
        if told is None:
            return Trace(steps, "a person", "the news of it is not in the outbox: `clinic audit --repair` tells it")
        steps.append(Step(what="saved", at=told.saved_at))
        if told.published_at is None:
            return Trace(steps, "to be published", "do the appointment service and its transport run?")
        steps.append(Step(what="published", at=told.published_at, position=told.position))
        return Trace(steps, None, "the news of it is published")
