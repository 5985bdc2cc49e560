"""The people of a campaign: those of `clients`, at a pace, at any of a service's instances, some of whom lose
patience.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import httpx
from support.clients import UNKNOWN, Client
from support.ledger import History, Json

LEAVES = 0.03
"""Of the requests that change something, how many are left before their answer is there."""
BY_TWO = 0.5
"""Of the appointments, how many two people start, or finish, at the same moment."""
BEHAVIOURS = (
    "left before the answer",
    "started again",
    "started twice at once",
    "finished again",
    "finished twice at once",
)
"""What the people of every campaign do at times."""


class CampaignClient(Client):
    """Rests for `pace` seconds on average between two appointments; `urls` are those of both services'
    instances.
    """

    between_tries = 0.1, 0.5

    def __init__(
        self,
        http: httpx.AsyncClient,
        urls: tuple[Sequence[str], Sequence[str]],
        history: History,
        rng: random.Random,
        pace: float,
    ) -> None:
        self._urls = urls
        self._pace = pace
        super().__init__(http, urls[0][0], urls[1][0], history, rng)

    async def work(self, until: asyncio.Event, waiting_room: list[str]) -> None:
        while not until.is_set():
            await asyncio.sleep(self._rng.uniform(0, 2 * self._pace))
            appointment_id = (
                waiting_room.pop(0)
                if len(waiting_room) > 20 and self._rng.random() < 0.5
                else await self.start()
            )
            if appointment_id is None:
                await asyncio.sleep(self._rng.uniform(*self.between_tries))
            elif self._rng.random() < 0.3:  # it takes its time
                waiting_room.append(appointment_id)
            else:
                await self._finish_in_some_way(appointment_id)

    async def _start(self, request: Json) -> str | None:
        if "headers" not in request or self._rng.random() > BY_TWO:
            return await super()._start(request)
        both = await asyncio.gather(super()._start(request), super()._start(request))
        self._history.behaviours["started twice at once"] += all(both)
        return both[0] or both[1]

    async def _finish_in_some_way(self, appointment_id: str) -> None:
        if self._rng.random() < BY_TWO:
            both = await asyncio.gather(self.finish(appointment_id), self.finish(appointment_id))
            self._history.behaviours["finished twice at once"] += all(both)
        await super()._finish_in_some_way(appointment_id)

    async def _outcome(self, method: str, url: str, **more: Any) -> tuple[str, Json | None]:
        self._appointment_url, self._financial_url = (self._rng.choice(each) for each in self._urls)
        leaves = method == "POST" and self._rng.random() < LEAVES
        if leaves:
            more["timeout"] = httpx.Timeout(5, read=self._rng.uniform(0.0005, 0.01))
        outcome, found = await super()._outcome(method, url, **more)
        self._history.behaviours["left before the answer"] += leaves and outcome == UNKNOWN
        return outcome, found
