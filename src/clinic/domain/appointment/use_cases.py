"""What the appointment context does."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from hashlib import sha256
from typing import TypeVar
from uuid import UUID

from msgspec.structs import replace

from clinic.domain.appointment.model import Appointment
from clinic.domain.appointment.ports import AppointmentFilter, Appointments
from clinic.domain.errors import Conflict, NotFound, Refused
from clinic.domain.events import AppointmentFinished, to_message
from clinic.domain.messaging.messages import PublicationStatus
from clinic.domain.messaging.ports import Clock, Outbox, Telemetry, Waiting
from clinic.domain.money import Money
from clinic.domain.tracing import Step, Trace

T = TypeVar("T")

MAX_TRIES = 5


async def _until_saved(appointment_id: UUID, attempt: Callable[[UUID], Awaitable[T]]) -> T:
    """Load, decide and save again while somebody else saves first. Raises `Conflict` after `MAX_TRIES`."""
    for _ in range(MAX_TRIES):
        with suppress(Conflict):
            return await attempt(appointment_id)
    raise Conflict(f"appointment {appointment_id} is being changed by others: try again")


class StartAppointment:
    """Start an appointment now, at the clinic's price per hour.

    Starting it again with the same `key` returns it as it started, at any time. Raises `Refused` if the key
    started another one. Raises `Unavailable` when the outcome is unknown: with a key, repeating is safe.
    """

    def __init__(
        self, appointments: Appointments, clock: Clock, new_id: Callable[[], UUID], hourly_price: Money
    ) -> None:
        self._appointments, self._clock = appointments, clock
        self._new_id, self._hourly_price = new_id, hourly_price

    async def __call__(self, physician_id: UUID, patient_id: UUID, key: str | None = None) -> Appointment:
        appointment = Appointment.started(
            id=self._new_id(),
            physician_id=physician_id,
            patient_id=patient_id,
            price=self._hourly_price,
            now=self._clock(),
        )
        if key is None:
            return await self._appointments.add(appointment)
        first = await self._appointments.add(appointment, once=sha256(key.encode()).digest())
        if replace(appointment, id=first.id, price=first.price, start=first.start) != first:
            sentence = "this key started another appointment: give each its own, and repeat it unchanged"
            raise Refused(sentence, code="key-reused")
        return first


class FinishAppointment:
    """Finish an appointment now; it will be charged exactly once. Finishing it again changes nothing.

    Raises `NotFound`. Raises `Unavailable` when the outcome is unknown: finishing it again is safe.
    """

    def __init__(self, appointments: Appointments, clock: Clock, telemetry: Telemetry) -> None:
        self._appointments, self._clock = appointments, clock
        self._telemetry = telemetry

    async def __call__(self, appointment_id: UUID) -> Appointment:
        return await _until_saved(appointment_id, self._finish)

    async def _finish(self, appointment_id: UUID) -> Appointment:
        appointment = await self._appointments.get(appointment_id)
        finished, event = appointment.finish(self._clock())
        if event is None:
            return finished
        message = to_message(event)
        saved = await self._appointments.save(finished, message)
        self._telemetry("finished", event_id=message.id, appointment_id=message.subject)
        return saved


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

    async def __call__(
        self, matching: AppointmentFilter, limit: int, after: UUID | None = None
    ) -> Sequence[Appointment]:
        return await self._appointments.page(matching, limit, after)


class ListLateAppointments:
    """Show the finished ones whose event has waited for so many seconds to be published, and its place.

    The longest waiting first, a page at a time. None stands for an event whose appointment nobody knows.
    """

    def __init__(self, appointments: Appointments, outbox: Outbox, clock: Clock) -> None:
        self._appointments, self._outbox = appointments, outbox
        self._clock = clock

    async def __call__(
        self, seconds: int, limit: int, after: Waiting | None = None
    ) -> Sequence[tuple[Waiting, Appointment | None]]:
        waiting = await self._outbox.waiting(limit, self._clock() - timedelta(seconds=seconds), after)
        found = await asyncio.gather(*(self._find(subject) for _, subject in waiting))
        return list(zip(waiting, found, strict=True))

    async def _find(self, subject: str) -> Appointment | None:
        with suppress(NotFound, ValueError):  # what something else has written there
            return await self._appointments.get(UUID(subject))
        return None


class FindFinishedEvent:
    """Show the event of one appointment and its publication; None if it is unknown or not finished."""

    def __init__(self, appointments: Appointments, outbox: Outbox) -> None:
        self._appointments, self._outbox = appointments, outbox

    async def __call__(
        self, appointment_id: UUID
    ) -> tuple[AppointmentFinished, PublicationStatus | None] | None:
        try:
            event = (await self._appointments.get(appointment_id)).finished_event
        except NotFound:
            return None
        return (event, await self._outbox.status(to_message(event))) if event else None


class RepublishFinished:
    """Put the event of a finished appointment into the outbox once more, to be published as always.

    An event that already waits there is left alone. Raises `NotFound`, and `Refused` if the appointment is
    not finished. Raises `Unavailable` when the outcome is unknown: republishing again is safe.
    """

    def __init__(self, appointments: Appointments, outbox: Outbox) -> None:
        self._appointments, self._outbox = appointments, outbox

    async def __call__(self, appointment_id: UUID) -> None:
        await _until_saved(appointment_id, self._republish)

    async def _republish(self, appointment_id: UUID) -> None:
        appointment = await self._appointments.get(appointment_id)
        if appointment.finished_event is None:
            sentence = f"appointment {appointment_id} is not finished: no event to publish"
            raise Refused(sentence, code="not-finished")
        event = to_message(appointment.finished_event)
        status = await self._outbox.status(event)
        if status is None or status.published_at is not None:
            await self._appointments.save(appointment, event)


class TraceAppointment:
    """Show how far an appointment and its event have come. Raises `NotFound`."""

    def __init__(self, appointments: Appointments, outbox: Outbox) -> None:
        self._appointments, self._outbox = appointments, outbox

    async def __call__(self, appointment_id: UUID) -> Trace:
        appointment = await self._appointments.get(appointment_id)
        steps = [Step(event="started", at=appointment.start)]
        if appointment.finished_event is None:
            return Trace(steps, "to be finished", "nobody has finished it yet")
        steps.append(Step(event="finished", at=appointment.finished_event.end))
        status = await self._outbox.status(to_message(appointment.finished_event))
        if status is None:
            remedy = "its event is not in the outbox: `clinic audit --repair` publishes it"
            return Trace(steps, "a person", remedy)
        steps.append(Step(event="saved", at=status.saved_at))
        if status.published_at is None:
            return Trace(steps, "to be published", "are the appointment service and its transport running?")
        steps.append(Step(event="published", at=status.published_at, position=status.position))
        return Trace(steps, None, "its event is published")
