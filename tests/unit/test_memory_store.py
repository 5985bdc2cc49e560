"""The memory stores keep every promise, for as long as their process lives."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from clinic.adapters.memory.appointments import MemoryAppointments
from clinic.adapters.memory.charges import MemoryCharges
from clinic.adapters.memory.dead_letters import MemoryDeadLetters
from clinic.testing.appointments import AppointmentsContract
from clinic.testing.builders import now
from clinic.testing.charges import ChargesContract
from clinic.testing.dead_letters import DeadLettersContract


class TestMemoryAppointments(AppointmentsContract):
    survives = False
    several = False
    always_answers = True

    @asynccontextmanager
    async def opened(self, where: Path, lease: float) -> AsyncIterator[MemoryAppointments]:  # noqa: ARG002 — memory is nowhere
        yield MemoryAppointments(now, lease)


class TestMemoryCharges(ChargesContract):
    survives = False
    several = False
    always_answers = True

    @asynccontextmanager
    async def opened(self, where: Path) -> AsyncIterator[MemoryCharges]:  # noqa: ARG002 — memory is nowhere
        yield MemoryCharges()


class TestMemoryDeadLetters(DeadLettersContract):
    survives = False
    several = False
    always_answers = True

    @asynccontextmanager
    async def opened(self, where: Path) -> AsyncIterator[MemoryDeadLetters]:  # noqa: ARG002 — memory is nowhere
        yield MemoryDeadLetters()
