"""What the charge stores share: many who wait for a charge, one look-up for all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from uuid import UUID

from clinic.domain.errors import NotFound, NotNow, Unavailable
from clinic.domain.financial.model import Charge
from clinic.domain.financial.ports import AddResult

LOOKUP_INTERVAL = 0.05
MAX_WAITERS = 1000
MIN_WAIT = 0.01
"""Seconds that even the shortest wait takes to look once."""


class ChargeWaiters:
    """A charge made in this process wakes its waiters at once; for those that others make, all share one
    look-up.

    Costs nothing while nobody waits. `find` answers the charges there are among many ids.
    """

    def __init__(self, find: Callable[[Sequence[UUID]], Awaitable[Sequence[Charge]]]) -> None:
        self._find = find
        self._waiting: dict[UUID, set[asyncio.Future[Charge]]] = {}
        self._waiters = 0
        self._trouble: NotNow | None = None
        self._new_ids: set[UUID] = set()
        self._came = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def notify(self, added: AddResult) -> None:
        """These are kept."""
        if self._waiting:
            self._wake([*added.new, *added.existing])

    def _wake(self, charges: Iterable[Charge]) -> None:
        for charge in charges:
            for waiter in self._waiting.get(charge.appointment_id, ()):
                if not waiter.done():
                    waiter.set_result(charge)

    async def wait(self, appointment_id: UUID, timeout: float) -> Charge:
        """The charge as soon as there is one. Raises `NotFound` after so many seconds.

        Raises `Unavailable` where too many wait already, or the store does not answer.
        """
        if self._waiters >= MAX_WAITERS:
            raise Unavailable(f"{MAX_WAITERS} requests wait for charges already: ask again without waiting")
        waiter: asyncio.Future[Charge] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(appointment_id, set()).add(waiter)
        self._waiters += 1
        try:
            self._look_soon(appointment_id)
            return await asyncio.wait_for(waiter, max(timeout, MIN_WAIT))
        except TimeoutError:
            raise self._trouble or NotFound(f"appointment {appointment_id} has no charge yet") from None
        finally:
            self._forget(appointment_id, waiter)

    def _look_soon(self, new_id: UUID) -> None:
        self._new_ids.add(new_id)
        self._came.set()
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        try:
            while self._waiting:
                ids, self._new_ids = self._new_ids or set(self._waiting), set()
                self._came.clear()
                try:
                    self._wake(await self._find(list(ids)))
                    self._trouble = None
                except (
                    NotNow
                ) as problem:  # the next look-up may find the store again; each waiter has its own bound
                    self._trouble = problem
                with suppress(TimeoutError):  # who comes meanwhile is not kept waiting
                    await asyncio.wait_for(self._came.wait(), LOOKUP_INTERVAL)
        finally:
            self._looking = None

    def _forget(self, appointment_id: UUID, waiter: asyncio.Future[Charge]) -> None:
        self._waiters -= 1
        others = self._waiting[appointment_id]
        others.discard(waiter)
        if not others:
            del self._waiting[appointment_id]
