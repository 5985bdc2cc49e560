"""The real stack: two instances of each service, MongoDB behind proxies that can cut, and Kafka, in
containers of its own.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pymongo
from confluent_kafka import Consumer, KafkaException, TopicPartition
from support import servers
from support.deployments import Outage, Server, own_mongo, serving
from support.processes import eventually
from support.proxy import Proxy, proxied

from campaign.failpoints import Control
from campaign.messages import Letter
from campaign.nemesis import Action, Hit
from campaign.plan import Fault, Options
from campaign.stacks import Stack, services
from campaign.supervisor import Supervisor

INSTANCES = 2
PARTITIONS = 6
OUTAGES: Final[Mapping[str, Outage]] = {"kill": "killed", "pause": "frozen", "restart": "stopped"}
MISSED_AFTER: Final = {"session.timeout.ms": "2000", "heartbeat.interval.ms": "500"}
"""A member of the group that dies is missed sooner than by default: the campaign has many to bury."""
QUICK: Final = {
    "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
    "KAFKA_BROKER_SESSION_TIMEOUT_MS": "2000",
    "KAFKA_BROKER_HEARTBEAT_INTERVAL_MS": "500",
}
"""A broker that was killed is let in again sooner, too."""
BACK_TIMEOUT = 120.0
COORDINATOR_TRIES = 12


def _command(name: str, collection: str) -> bytes:
    return (
        b"\x02"
        + name.encode()
        + b"\x00"
        + (len(collection) + 1).to_bytes(4, "little")
        + collection.encode()
        + b"\x00"
    )


SOUGHT: Final = {
    "add": ("appointment", _command("insert", "appointments")),
    "save": ("appointment", b"\x08upsert\x00\x01"),
    "confirm": ("appointment", b"$pull\x00"),
    "charge": ("financial", _command("insert", "charges")),
    "dead-letter": ("financial", _command("update", "dead_letters")),
}
"""How each write looks on the way to MongoDB, and through whose proxy it goes."""


@dataclass
class RealServers:
    """What several campaigns may use one after the other."""

    mongo: Server
    kafka: Server


@contextmanager
def real_servers() -> Iterator[RealServers]:
    with own_mongo() as mongo, servers.kafka(**QUICK) as address, serving(address) as kafka:
        yield RealServers(mongo, kafka)


class Real(Stack):
    """Databases, a topic and a group of its own, on those servers."""

    def __init__(
        self, folder: Path, options: Options, below: RealServers, proxies: Mapping[str, Proxy]
    ) -> None:
        self._below = below
        self._proxies = proxies
        self._name = f"campaign-{uuid4().hex[:12]}"
        self.control = Control(folder / "points")
        self.services = {
            context: services(folder, context, INSTANCES, self._settings(proxies[context].url), options)
            for context in ("appointment", "financial")
        }

    def _settings(self, mongo: str) -> dict[str, str]:
        options = ",".join(f'"{name}": "{value}"' for name, value in MISSED_AFTER.items())
        return {
            "CLINIC_STORE": "mongo",
            "CLINIC_TRANSPORT": "kafka",
            "CLINIC_MONGO_URL": mongo,
            "CLINIC_MONGO_DATABASE": self._name,
            "CLINIC_MONGO_TIMEOUT": "1",
            "CLINIC_KAFKA_BOOTSTRAP_SERVERS": self._below.kafka.address,
            "CLINIC_KAFKA_TOPIC": self._name,
            "CLINIC_CONSUMER_GROUP": self._name,
            "CLINIC_KAFKA_PARTITIONS": str(PARTITIONS),
            "CLINIC_KAFKA_OPTIONS": f"{{{options}}}",
        }

    def unacknowledged(self) -> int:
        """What stands between the group's offsets and the end of each partition."""
        consumer = Consumer(
            {"bootstrap.servers": self._below.kafka.address, "group.id": self._name, "log_level": 0}
        )
        try:
            return sum(_read_after(consumer, place) for place in self._committed(consumer))
        finally:
            consumer.close()

    def _committed(self, consumer: Consumer) -> list[TopicPartition]:
        """As soon as the broker's coordinator answers: after an outage it may be the last to come back."""
        partitions = [TopicPartition(self._name, number) for number in range(PARTITIONS)]
        for _ in range(COORDINATOR_TRIES):
            with suppress(KafkaException):
                return consumer.committed(partitions, timeout=10)
        return consumer.committed(partitions, timeout=10)

    def dead_letters(self) -> list[Letter]:
        with pymongo.MongoClient[dict[str, Any]](self._below.mongo.address) as client:
            found = client[f"{self._name}_financial"]["dead_letters"].find({}, Letter._fields)
            return [Letter(*(each[name] for name in Letter._fields)) for each in found]

    def actions(self, supervisors: Mapping[str, list[Supervisor]]) -> Mapping[str, Action]:  # noqa: ARG002 — servers go without warning
        return dict.fromkeys(OUTAGES, self._away) | {"cut": self._cut}

    async def _away(self, fault: Fault) -> Hit:
        server: Server = getattr(self._below, fault.where)
        hit = Hit(fault.where)
        async with server.away(OUTAGES[fault.action]):
            await asyncio.sleep(fault.seconds)
        await eventually(
            lambda: asyncio.to_thread(self._answers, fault.where), within=BACK_TIMEOUT, every=0.1
        )
        return hit

    def _answers(self, server: str) -> bool:
        return (
            servers.answers(self._below.mongo.address)
            if server == "mongo"
            else servers.has_broker(self._below.kafka.address)
        )

    async def _cut(self, fault: Fault) -> Hit | None:
        context, sought = SOUGHT[fault.where]
        proxy = self._proxies[context]
        before = proxy.swallowed

        async def is_cut() -> bool:
            return proxy.swallowed > before

        proxy.cut_after(sought)
        try:
            with suppress(AssertionError):
                await eventually(is_cut, within=5)
                return Hit(context)
        finally:
            proxy.cut_after(sought, 0)
        return None


@contextmanager
def on_real_servers(folder: Path, options: Options, below: RealServers) -> Iterator[Real]:
    """The stack, with a proxy for each context."""
    with ExitStack() as proxies:
        yield Real(
            folder,
            options,
            below,
            {
                context: proxies.enter_context(proxied(below.mongo.address))
                for context in ("appointment", "financial")
            },
        )


def _read_after(consumer: Consumer, place: TopicPartition) -> int:
    low, high = consumer.get_watermark_offsets(place, timeout=10)
    return high - (place.offset if place.offset >= 0 else low)
