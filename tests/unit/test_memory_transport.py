"""The memory transport keeps every promise, for as long as its process lives."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

from contracts.subject import Ends
from contracts.transports import TransportContract
from support.builders import now

from clinic.adapters.memory.transport import MemoryLog, MemoryPublisher, MemorySubscription


class TestMemoryTransport(TransportContract):
    survives, always_answers = False, True

    @asynccontextmanager
    async def opened(self, where: Path) -> AsyncIterator[Ends]:  # noqa: ARG002 — memory is nowhere
        log = MemoryLog()
        yield Ends(MemoryPublisher(log, now), lambda group: nullcontext(MemorySubscription(log, group, now)))
