"""The promise: an acknowledged finish has exactly one charge, whatever is killed, whenever."""

import asyncio
import itertools
import os
import random
import sys
from dataclasses import dataclass, field
from time import monotonic

import httpx
import pytest
from clients import Client
from ledger import History, Verdict, judge, kept, shown_charges
from processes import BEHIND, PROGRAM, Pair, Process, Service, eventually

KILLS = int(os.environ.get("CLINIC_TEST_KILLS", "18"))
APPOINTMENTS = int(os.environ.get("CLINIC_TEST_APPOINTMENTS", "1000"))
SEED = int(os.environ.get("CLINIC_TEST_SEED", "3"))
CLIENTS = 8
RUNS_WITHIN = 60 + 10 * KILLS + APPOINTMENTS / 10
PRICES = ("200.00", "133.33", "99.99", "0.01", "12345.67")
LONG_AGO = (59 * 60 + 50, 3600, 3 * 3600 - 8, 24 * 3600 - 5)
"""Seconds: some of these appointments end on either side of a whole hour."""


@dataclass
class Reaper:
    """Kills the services, one, the other, both, and some again while they recover; and starts them again."""

    pair: Pair
    history: History
    dice: random.Random
    look: Client
    kills: dict[str, int] = field(default_factory=lambda: {"appointment": 0, "financial": 0})
    slowest: float = 0.0

    async def work(self, kills: int) -> None:
        one, other = self.pair.services
        for victims in itertools.cycle([(one,), (other,), (one, other)]):
            await asyncio.sleep(self.dice.uniform(0.1, 1.0))
            await self._kill_and_start(victims)
            if self.dice.random() < 0.4:
                await asyncio.sleep(self.dice.uniform(0.0, 0.6))
                await self._kill_and_start(victims)
            await self._recovered(victims)
            if sum(self.kills.values()) >= kills:
                return

    async def _kill_and_start(self, victims: tuple[Service, ...]) -> None:
        for victim in victims:
            victim.kill()
            self.kills[victim.name] += 1
        await asyncio.sleep(self.dice.uniform(0.0, 0.3))
        self.pair.appointment.environment["CLINIC_HOURLY_PRICE"] = self.dice.choice(PRICES)
        for victim in victims:
            victim.start()

    async def _recovered(self, victims: tuple[Service, ...]) -> None:
        """Recovered is who charges what was last acknowledged before."""
        began, newest = monotonic(), list(self.history.finished)[-20:]
        for victim in victims:
            await victim.ready()
        await asyncio.gather(*(_charged(self.look, self.history, each) for each in newest))
        self.slowest = max(self.slowest, monotonic() - began)


async def _charged(client: Client, history: History, appointment_id: str) -> None:
    async def has_charge() -> bool:
        await client.look_at_charge(appointment_id)
        return appointment_id in history.seen

    await eventually(has_charge)


async def _long_ago(pair: Pair, processes: list[Process], client: Client, history: History) -> list[str]:
    """Appointments that started then and wait to be finished."""
    for seconds in LONG_AGO:
        settings = pair.environment | {"CLINIC_HOURLY_PRICE": "70.07"}
        command = (PROGRAM[0], "-c", BEHIND, str(seconds), "run", "appointment")
        service = Service(f"appointment {seconds} s ago", command, settings, pair.folder, pair.appointment.url)
        processes.append(service)
        await service.started()
        for _ in range(25):
            assert await client.start()
        assert await service.stopped() == 0
    return list(history.started)


async def _load(pair: Pair, history: History, reaper: Reaper, http: httpx.AsyncClient, waiting_room: list[str]) -> None:
    enough = asyncio.Event()
    urls = pair.appointment.url, pair.financial.url
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(Client(http, *urls, history, random.Random(SEED * 1000 + number)).work(enough, waiting_room))  # noqa: S311
        await reaper.work(KILLS)

        async def has_enough() -> bool:
            return len(history.started) >= APPOINTMENTS

        await eventually(has_enough, within=RUNS_WITHIN)
        enough.set()


def _line(reaper: Reaper, history: History, verdict: Verdict) -> str:
    figures = {
        "seed": SEED,
        "kills": " + ".join(str(each) for each in reaper.kills.values()),
        "finishes acknowledged": len(history.finished),
        "requests acknowledged": history.count("acknowledged"),
        "refused": history.count("refused"),
        "unknown": history.count("unknown"),
        **{name: len(found) for name, found in vars(verdict).items()},
        "slowest recovery": f"{reaper.slowest:.2f} s",
    }
    return "\n" + " | ".join(f"{name} {value}" for name, value in figures.items()) + "\n"


@pytest.mark.timeout(RUNS_WITHIN + 60)
async def test_whatever_is_killed_every_acknowledged_finish_has_exactly_one_charge_that_never_changes(
    pair: Pair, processes: list[Process], http: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    history = History()
    client = Client(http, pair.appointment.url, pair.financial.url, history, random.Random(SEED))  # noqa: S311 — a seeded plan
    waiting_room = await _long_ago(pair, processes, client, history)
    await pair.started()
    reaper = Reaper(pair, history, random.Random(SEED), client)  # noqa: S311 — a seeded plan

    await _load(pair, history, reaper, http, waiting_room)
    await asyncio.gather(*(_charged(client, history, each) for each in list(history.finished)[-200:]))
    found = await kept(http, pair.appointment.url, pair.financial.url)
    shown = await shown_charges(http, pair.financial.url, list(history.started))
    verdict = judge(history, found, shown)

    with capsys.disabled():
        sys.stdout.write(_line(reaper, history, verdict))
    assert not verdict.breaches
    untold = {each["id"] for each in found.appointments} - history.started.keys()
    assert len(untold) <= history.outcomes["start", "unknown"]
    assert sum(each["total_price"] for each in found.charges) == sum(total for total in shown.values() if total is not None)
    assert min(reaper.kills.values()) >= KILLS // 3
    assert len(history.finished) > APPOINTMENTS / 2
    assert history.count("acknowledged") > history.count("refused") + history.count("unknown")
    assert "Traceback" not in pair.appointment.complained + pair.financial.complained
