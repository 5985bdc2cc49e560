"""`make record-alerts`: what real services show before, under and after each fault, all at the same time."""

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
from support.deployments import own_kafka, own_mongo
from support.processes import Pair

from alerts import faults
from alerts.recording import FOLDER, INTERVAL, Recording, Scraper, write

BEFORE, UNDER, AFTER = 60, 170, 130
"""Seconds: the rules wait for a minute, some of them behind a threshold of a minute."""
WHOLE = "broker-away"
"""Of this one every series is kept: the queries of the dashboard are tried on it."""


async def main(only: set[str]) -> None:
    with tempfile.TemporaryDirectory() as name, own_kafka() as kafka, own_mongo() as mongo:
        folder = Path(name)
        with ExitStack() as stack:
            pairs: dict[str, tuple[Pair, faults.Fault]] = {
                "calm": (a_pair(folder / "calm"), faults.calm),
                "broker-away": (
                    a_pair(folder / "broker", TRANSPORT="kafka", KAFKA_BOOTSTRAP_SERVERS=kafka.address),
                    faults.away(kafka),
                ),
                "database-away": (
                    a_pair(folder / "database", STORE="mongo", MONGO_URL=mongo.address, MONGO_TIMEOUT="2"),
                    faults.away(mongo),
                ),
                "financial-down": (a_pair(folder / "financial"), faults.financial_down),
                "charges-locked": (a_pair(folder / "locked"), faults.charges_locked),
                "few-are-late": (a_pair(folder / "late"), faults.few_are_late),
                "poison-event": (a_pair(folder / "poison"), faults.poison),
                "log-unwritable": (
                    faults.with_piped_log(a_pair(folder / "log")),
                    faults.log_unwritable,
                ),
                "clock-off": (faults.with_a_clock(a_pair(folder / "clock")), faults.clock_off),
                "charge-lost": (faults.Audited(made(folder / "lost"), {}), faults.charge_lost),
                "disk-full": (a_pair(folder / "disk"), faults.disk_full),
            }
            stack.enter_context(faults.small_disk(folder / "disk" / "data"))
            chosen = {fault: pair for fault, pair in pairs.items() if not only or fault in only}
            recording = [record(fault, pair, strikes) for fault, (pair, strikes) in chosen.items()]
            failures = [each for each in await asyncio.gather(*recording, return_exceptions=True) if each]
    if failures:  # the others are recorded all the same
        raise failures[0]


def a_pair(folder: Path, **settings: str) -> Pair:
    return Pair(made(folder), {f"CLINIC_{name}": value for name, value in settings.items()})


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


async def started(pair: Pair) -> None:
    """On a busy machine a start may be refused by a broker that has only just begun."""
    for left in reversed(range(5)):
        try:
            await pair.started()
        except AssertionError:
            if not left:
                raise
            for service in faults.recorded(pair):
                service.clean_up()
        else:
            return


async def record(fault: str, pair: Pair, strikes: faults.Fault) -> None:
    try:
        await started(pair)
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            write(fault, await recorded(http, pair, strikes), whole=fault == WHOLE)
        for service in faults.recorded(pair):
            assert service.exit_code is None, f"{fault}: {service.name} ended: {service.complained[-2000:]}"
    finally:
        for service in faults.recorded(pair):
            service.clean_up()


async def recorded(http: httpx.AsyncClient, pair: Pair, strikes: faults.Fault) -> Recording:
    began = time.monotonic()
    scraper = Scraper({service.name: service.url for service in faults.recorded(pair)}, time.time())

    async def scrape() -> None:
        number = 0
        while number <= (BEFORE + UNDER + AFTER) // INTERVAL:
            await asyncio.sleep(began + number * INTERVAL - time.monotonic())
            await scraper.scrape(http, number)
            number = int((time.monotonic() - began) / INTERVAL) + 1

    async def strike() -> None:
        await asyncio.sleep(BEFORE)
        async with strikes(pair):
            await asyncio.sleep(max(0.0, began + BEFORE + UNDER - time.monotonic()))

    scraping, striking = asyncio.create_task(scrape()), asyncio.create_task(strike())
    loading = [asyncio.create_task(faults.load(http, pair))]
    if strikes is faults.few_are_late:
        await asyncio.sleep(2 * INTERVAL)
        loading.append(asyncio.create_task(faults.burst(http, pair)))
    await asyncio.gather(scraping, striking)
    for task in loading:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return Recording(BEFORE, BEFORE + UNDER, scraper.series)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make record-alerts")
    parser.add_argument("--only", default="", help="faults, with commas")
    FOLDER.mkdir(exist_ok=True)
    sys.exit(asyncio.run(main(set(filter(None, parser.parse_args().only.split(","))))))
