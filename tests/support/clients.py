"""People who start and finish appointments while the services come and go, and remember what they were
told.
"""

import asyncio
import random
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import msgspec

from support.ledger import History, Json, read

ACKNOWLEDGED = "acknowledged"
REFUSED = "refused"
UNKNOWN = "unknown"
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout)
GONE_AT_ONCE = (AttributeError,)
"""What anyio raises where the other end dies while a connection is made: it asks for the peer of a socket
that is gone.
"""
WITH_A_KEY = 0.8
"""Of the starts, how many can be repeated."""
STUBBORN = 0.6
"""Of the people, how many ask again until they are answered; others leave."""
TRIES = 200
"""How often somebody who wants to know asks again: for a minute of closed doors."""
LONGEST_REST = 4
"""Times the first one."""


class Client:
    """One person at the front desk, at times curious about charges.

    What a service may have heard without the client hearing its answer is unknown: a connection that broke, a
    time-out,
    and, for what changes something, a 503.
    """

    between_tries = 0.05, 0.15
    """Seconds, after the first try in vain."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        appointment_url: str,
        financial_url: str,
        history: History,
        rng: random.Random,
    ) -> None:
        self._http = http
        self._appointment_url = appointment_url
        self._financial_url = financial_url
        self._history = history
        self._rng = rng

    async def work(self, until: asyncio.Event, waiting_room: list[str]) -> None:
        """Start and finish appointments, beginning with those that wait, until that event."""
        while not until.is_set():
            await asyncio.sleep(self._rng.uniform(0, 0.02))
            appointment_id = (
                waiting_room.pop() if waiting_room and self._rng.random() < 0.3 else await self.start()
            )  # some
            if appointment_id is None:
                await asyncio.sleep(0.05)
            elif self._rng.random() < 0.95:  # the rest stay unfinished
                await self._finish_in_some_way(appointment_id)

    async def start(self) -> str | None:
        """The id of a new appointment; None where the client was not told one. With a key, most ask again."""
        request: Json = {"json": {"physician_id": str(uuid4()), "patient_id": str(uuid4())}}
        tries = 1
        if self._rng.random() < WITH_A_KEY:
            request["headers"] = {"Idempotency-Key": f'"{uuid4()}"'}
            tries = TRIES if self._rng.random() < STUBBORN else 1
        for tried in range(1, tries + 1):
            if appointment_id := await self._start(request):
                return appointment_id
            await self._rest(tried)
        return None

    async def _start(self, request: Json) -> str | None:
        _, started = await self._ask("start", "POST", f"{self._appointment_url}/", **request)
        if started is None:
            return None
        self._history.acknowledged_start(started)
        if "headers" in request:
            self._history.requests[started["id"]] = request
        return str(started["id"])

    async def finish(self, appointment_id: str) -> bool:
        """Whether it was acknowledged."""
        outcome, finished = await self._ask("finish", "POST", f"{self._appointment_url}/{appointment_id}/")
        if outcome == UNKNOWN:
            self._history.perhaps_finished.add(appointment_id)
        if finished is not None:
            self._history.acknowledged_finish(finished)
        return finished is not None

    async def look_at_charge(self, appointment_id: str) -> None:
        """Remember its total, where there is one soon."""
        _, charge = await self._ask(
            "look", "GET", f"{self._financial_url}/{appointment_id}/", headers={"Prefer": "wait=1"}
        )
        if charge is not None:
            self._history.saw_charge(appointment_id, Decimal(charge["total_price"]))

    async def _finish_in_some_way(self, appointment_id: str) -> None:
        for tried in range(1, 1 + (TRIES if self._rng.random() < STUBBORN else 1)):
            if await self.finish(appointment_id):
                break
            await self._rest(tried)
        else:
            return
        if self._rng.random() < 0.1:  # some are not sure that they did
            await self.finish(appointment_id)
        if self._rng.random() < 0.1 and appointment_id in self._history.requests:  # or that it ever began
            await self._start(self._history.requests[appointment_id])
        if self._rng.random() < 0.2:  # some want to see what it costs
            await self.look_at_charge(appointment_id)

    async def _rest(self, tried: int) -> None:
        """Longer after each try in vain: the fewer there are who knock, the sooner somebody opens."""
        await asyncio.sleep(self._rng.uniform(*self.between_tries) * min(tried, LONGEST_REST))

    async def _ask(self, kind: str, method: str, url: str, **more: Any) -> tuple[str, Json | None]:
        outcome, found = await self._outcome(method, url, **more)
        self._history.outcomes[kind, outcome] += 1
        return outcome, found

    async def _outcome(self, method: str, url: str, **more: Any) -> tuple[str, Json | None]:
        try:
            answer = await self._http.request(method, url, **more)
        except NEVER_SENT:
            return REFUSED, None
        except (httpx.TransportError, *GONE_AT_ONCE):
            return UNKNOWN, None
        if answer.is_success:
            return self._read(answer)
        changes = method == "POST"
        expected = (
            {httpx.codes.SERVICE_UNAVAILABLE}
            if changes
            else {httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.NOT_FOUND}
        )
        if answer.status_code not in expected:
            self._history.surprises.add(f"{method} {url}: {answer.status_code} {answer.text}")
        return UNKNOWN if changes else REFUSED, None

    def _read(self, answer: httpx.Response) -> tuple[str, Json | None]:
        try:
            return ACKNOWLEDGED, read(answer)
        except msgspec.DecodeError as error:
            self._history.surprises.add(
                f"{answer.request.method} {answer.url}: {answer.status_code}, and no JSON: {error}"
            )
            return UNKNOWN, None
