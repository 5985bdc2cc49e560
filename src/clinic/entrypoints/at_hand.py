"""What stands before a store of appointments: a finish needs no load where this process started it."""

from collections import OrderedDict
from typing import Final
from uuid import UUID

from clinic.domain.appointment.model import Appointment
from clinic.domain.appointment.ports import Appointments
from clinic.entrypoints.forwarding import ForwardingAppointments

MAX_AT_HAND: Final = 10_000
"""Appointments; the oldest make room. A finish of one that is not at hand loads it."""


class AtHand(ForwardingAppointments):
    """Keeps the open appointments that this process added at hand, for a use case that saves what it gets.

    `get` may be out of date, which `save` says: where somebody saved first, it raises `Conflict`. Each is
    given once only, and so forgotten before it is saved: the next `get` loads it. Nothing is answered from
    here.
    """

    def __init__(self, appointments: Appointments, limit: int = MAX_AT_HAND) -> None:
        super().__init__(appointments)
        self._limit = limit
        self._open: OrderedDict[UUID, Appointment] = OrderedDict()
        self.given = 0

    async def add(self, appointment: Appointment, *, once: bytes = b"") -> Appointment:
        """Like the store's. What another call added under the same key is not kept at hand."""
        added = await self._appointments.add(appointment, once=once)
        if added.id == appointment.id:
            self._open[added.id] = added
            if len(self._open) > self._limit:
                self._open.popitem(last=False)
        return added

    async def get(self, appointment_id: UUID) -> Appointment:
        """The appointment as this process added it, or as the store has it."""
        known = self._open.pop(appointment_id, None)
        if known is None:
            return await self._appointments.get(appointment_id)
        self.given += 1
        return known
