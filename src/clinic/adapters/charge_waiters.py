"""What the charge stores share: many requests wait for charges, and one look-up serves them all."""

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from uuid import UUID

from clinic.adapters.group_commit import answer
from clinic.domain.errors import NotFound, NotNow, Unavailable
from clinic.domain.financial.model import Charge
from clinic.domain.financial.ports import AddResult, Charges

LOOKUP_INTERVAL = 0.05
"""Seconds between two look-ups of everything awaited."""
MAX_WAITERS = 1000
MIN_WAIT = 0.01
"""Seconds that even the shortest wait takes to look once."""


class ChargeLookup(Charges):
    """Charges that are found by their appointments' ids, at once or as soon as they are there."""

    def __init__(self) -> None:
        self._waiters = ChargeWaiters(self._find)

    async def get(self, appointment_id: UUID) -> Charge:
        for charge in await self._find([appointment_id]):
            return charge
        raise NotFound(f"appointment {appointment_id} has no charge yet")

    async def wait_for(self, appointment_id: UUID, timeout: float) -> Charge:
        return await self._waiters.wait(appointment_id, timeout)

    @abstractmethod
    async def _find(self, ids: Sequence[UUID]) -> Sequence[Charge]: ...


class ChargeWaiters:
    """A charge made in this process wakes its waiters at once; one look-up finds those made by others.

    A new waiter is looked up at once, and all again every `LOOKUP_INTERVAL`, however many new ones come.
    Costs nothing while nobody waits. `find` returns the charges of many ids; `clock` counts seconds.
    """

    def __init__(
        self,
        find: Callable[[Sequence[UUID]], Awaitable[Sequence[Charge]]],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._find = find
        self._clock = clock
        self._waiting: dict[UUID, set[asyncio.Future[Charge]]] = {}
        self._waiters = 0
        self._problem: NotNow | None = None
        self._new_ids: set[UUID] = set()
        self._came = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def notify(self, added: AddResult) -> None:
        """Wake the waiters for these charges."""
        if self._waiting:
            self._wake([*added.new, *added.existing])

    def _wake(self, charges: Iterable[Charge]) -> None:
        for charge in charges:
            for waiter in self._waiting.get(charge.appointment_id, ()):
                answer(waiter, charge)

    async def wait(self, appointment_id: UUID, timeout: float) -> Charge:
        """The charge as soon as there is one. Raises `NotFound` after `timeout` seconds.

        Raises `Unavailable` if too many wait already or the store does not answer, and any other failure of
        the look-up as it is.
        """
        if self._waiters >= MAX_WAITERS:
            raise Unavailable(f"{MAX_WAITERS} requests wait for charges already: ask again without waiting")
        waiter: asyncio.Future[Charge] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(appointment_id, set()).add(waiter)
        self._waiters += 1
        try:
            self._look_soon(appointment_id)
            async with asyncio.timeout(max(timeout, MIN_WAIT)):
                return await waiter
        except TimeoutError:
            raise self._problem or NotFound(f"appointment {appointment_id} has no charge yet") from None
        finally:
            self._forget(appointment_id, waiter)

    def _look_soon(self, new_id: UUID) -> None:
        self._new_ids.add(new_id)
        self._came.set()
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        next_for_all = self._clock()
        try:
            while self._waiting:
                self._came.clear()
                ids, self._new_ids = self._new_ids, set()
                if (now := self._clock()) >= next_for_all:
                    ids, next_for_all = set(self._waiting), now + LOOKUP_INTERVAL
                if ids:
                    await self._look_up(list(ids))
                with suppress(TimeoutError):
                    async with asyncio.timeout(next_for_all - self._clock()):
                        await self._came.wait()
        finally:
            self._looking = None

    async def _look_up(self, ids: Sequence[UUID]) -> None:
        try:
            self._wake(await self._find(ids))
            self._problem = None
        except NotNow as problem:
            self._problem = problem  # a later look-up may find the store again; each wait has its own timeout
        except Exception as error:  # noqa: BLE001 — raised to the waiters that it concerns
            if len(ids) > 1:
                await self._look_up(ids[::2])
                await self._look_up(ids[1::2])
            else:
                for waiter in self._waiting.get(ids[0], ()):
                    answer(waiter, error)

    def _forget(self, appointment_id: UUID, waiter: asyncio.Future[Charge]) -> None:
        self._waiters -= 1
        others = self._waiting[appointment_id]
        others.discard(waiter)
        if not others:
            del self._waiting[appointment_id]
