"""The services on MongoDB and Kafka, in databases, topics and groups of a test's own; and servers that a test
may take away.
"""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
from docker.errors import APIError  # type: ignore[import-untyped]
from testcontainers.core.docker_client import DockerClient

from support import servers
from support.clients import Client
from support.ledger import History, Json, compare, kept, read, shown_charges
from support.ports import free_ports
from support.processes import PROGRAM, Pair, Process, Service, eventually

FREEZES = 10
"""Tries, of less than a second."""

Outage = Literal["stopped", "frozen", "killed"]


def on_real_servers(folder: Path, processes: list[Process], mongo: str, kafka: str, **settings: str) -> Pair:
    """Both services, on nothing that another test uses; a test starts them. `processes` ends them."""
    name = f"test-{uuid4().hex}"
    pair = Pair(
        folder,
        {
            "CLINIC_STORE": "mongo",
            "CLINIC_TRANSPORT": "kafka",
            "CLINIC_MONGO_URL": mongo,
            "CLINIC_MONGO_DATABASE": name,
            "CLINIC_KAFKA_BOOTSTRAP_SERVERS": kafka,
            "CLINIC_KAFKA_TOPIC": name,
            "CLINIC_CONSUMER_GROUP": name,
            **settings,
        },
    )
    processes += pair.services
    return pair


def another(
    pair: Pair, processes: list[Process], context: Literal["appointment", "financial"], name: str
) -> Service:
    """One more instance of a service, at an address of its own."""
    (port,) = free_ports(1)
    settings = pair.environment | {f"CLINIC_{context.upper()}_PORT": str(port)}
    service = Service(name, (*PROGRAM, "run", context), settings, pair.folder, f"http://127.0.0.1:{port}")
    processes.append(service)
    return service


class Server:
    """A real server that a test may take away and give back; `address` is where clients find it."""

    def __init__(self, address: str) -> None:
        self.address = address
        port = urlsplit(address).port or int(address.rpartition(":")[2])
        self._docker = DockerClient().client
        (self._container,) = self._docker.containers.list(filters={"publish": str(port)})

    @asynccontextmanager
    async def away(self, how: Outage) -> AsyncIterator[None]:
        """Inside, it does not answer: its connections are refused, or nobody speaks on them. Afterwards it is
        back by itself.
        """
        container: Any = self._container
        if how == "frozen":
            await asyncio.to_thread(_freeze, container)
        elif how == "killed":
            await asyncio.to_thread(container.kill)
        else:
            await asyncio.to_thread(container.stop, timeout=5)
        try:
            yield
        finally:
            await asyncio.to_thread(container.unpause if how == "frozen" else container.start)

    def close(self) -> None:
        self._docker.close()


def _freeze(container: Any) -> None:
    # On a busy machine the engine may not catch all its processes in time; it lets them go on then.
    for _ in range(FREEZES):
        with suppress(APIError):
            container.pause()
            return
    container.pause()


@contextmanager
def own_mongo() -> Iterator[Server]:
    with servers.mongo(replica_set=False) as url, serving(url) as server:
        yield server


@contextmanager
def own_kafka() -> Iterator[Server]:
    with servers.kafka() as address, serving(address) as server:
        yield server


@contextmanager
def serving(address: str) -> Iterator[Server]:
    """The server that is found there."""
    server = Server(address)
    try:
        yield server
    finally:
        server.close()


async def start(http: httpx.AsyncClient, pair: Pair) -> str:
    """The id of a new appointment."""
    people = {"physician_id": str(uuid4()), "patient_id": str(uuid4())}
    answer = await http.post(f"{pair.appointment.url}/", json=people)
    return str(read(answer.raise_for_status())["id"])


async def finish(http: httpx.AsyncClient, pair: Pair) -> Json:
    """A new appointment, finished."""
    answer = await http.post(f"{pair.appointment.url}/{await start(http, pair)}/")
    appointment: Json = read(answer.raise_for_status())
    return appointment


async def finish_many(http: httpx.AsyncClient, pair: Pair, count: int) -> list[Json]:
    """Some at a time."""
    some = asyncio.Semaphore(25)

    async def one() -> Json:
        async with some:
            return await finish(http, pair)

    return await asyncio.gather(*(one() for _ in range(count)))


def remove_from_sqlite(pair: Pair, appointment_id: str) -> None:
    """Its charge, as a person would by hand."""
    with closing(sqlite3.connect(pair.data / "financial.db", timeout=5)) as connection, connection:
        assert (
            connection.execute(
                "DELETE FROM charges WHERE appointment_id = ?", (UUID(appointment_id).bytes,)
            ).rowcount
            == 1
        )


async def charged(http: httpx.AsyncClient, pair: Pair, ids: set[str], *, within: float = 120) -> None:
    """Return once each of these has a charge."""

    async def all_are() -> bool:
        found = await kept(http, pair.appointment.url, pair.financial.url)
        return ids <= {each["appointment_id"] for each in found.charges}

    await eventually(all_are, within=within, every=0.2)


async def breaches(http: httpx.AsyncClient, pair: Pair, history: History) -> dict[str, set[str]]:
    """What was promised to these clients and not kept, once everything that is finished had time to be
    charged.
    """

    async def all_are_charged() -> bool:
        found = await kept(http, pair.appointment.url, pair.financial.url)
        finished = {each["id"] for each in found.appointments if each["end_date"] is not None}
        return finished <= {each["appointment_id"] for each in found.charges}

    await eventually(all_are_charged, within=120, every=0.2)
    found = await kept(http, pair.appointment.url, pair.financial.url)
    compared = compare(history, found, await shown_charges(http, pair.financial.url, list(history.started)))
    return compared.breaches


async def readiness(http: httpx.AsyncClient, service: Service) -> Json:
    """What its readiness check says."""
    found: Json = (await http.get(f"{service.url}/health/ready")).json()
    return found


async def telemetry(http: httpx.AsyncClient, service: Service, event: str) -> int:
    """How often that happened since the service was started."""
    metrics = (await http.get(f"{service.url}/metrics")).raise_for_status().text
    found = [
        line for line in metrics.splitlines() if line.startswith(f'clinic_events_total{{event="{event}"}}')
    ]
    return int(float(found[0].split()[-1])) if found else 0


@asynccontextmanager
async def busy(
    http: httpx.AsyncClient, desks: list[tuple[Service, Service]], history: History
) -> AsyncIterator[None]:
    """While inside, clients start, finish and look, each at its own pair of instances."""
    enough = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number, (appointment, financial) in enumerate(desks):
            dice = random.Random(number)  # noqa: S311 — a seeded plan
            group.create_task(Client(http, appointment.url, financial.url, history, dice).work(enough, []))
        try:
            yield
        finally:
            enough.set()
