"""MongoDB (a replica set of one) and Kafka in containers, for one run of the benchmark.

On the host's network: behind a published port every byte would pass through Docker's proxy.
"""

import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pymongo
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from msgspec import Struct
from support import servers
from support.ports import free_ports

PARTITIONS = 6


class Servers(Struct, frozen=True):
    """Where they are, and the process of each."""

    mongo_url: str
    kafka: str
    processes: Mapping[str, int]
    versions: Mapping[str, str]

    def make_topic(self, name: str) -> None:
        """As clinic makes it: unlimited retention."""
        admin = self._admin()
        topic = NewTopic(name, PARTITIONS, 1, config={"retention.ms": "-1"})
        admin.create_topics([topic])[name].result()

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.kafka, "log_level": 0})

    def drop(self, topic: str, databases: Sequence[str]) -> None:
        """Leave nothing of a session."""
        client: pymongo.MongoClient[dict[str, Any]]
        with pymongo.MongoClient(self.mongo_url) as client:
            for name in databases:
                client.drop_database(name)
        admin = self._admin()  # a name of its own: it must outlive the answer
        admin.delete_topics([topic])[topic].result()


@contextmanager
def running() -> Iterator[Servers]:
    """Both, until the end of the block."""
    with ExitStack() as stack:
        url, mongod, mongo_version = stack.enter_context(_mongo())
        kafka, broker = stack.enter_context(_kafka())
        versions = {"MongoDB": mongo_version, "Kafka": servers.KAFKA_IMAGE.partition(":")[2]}
        yield Servers(url, kafka, {"mongod": mongod, "kafka": broker}, versions)


@contextmanager
def _mongo() -> Iterator[tuple[str, int, str]]:
    (port,) = free_ports(1)
    command = f"mongod --bind_ip 127.0.0.1 --port {port} --replSet rs0 --wiredTigerCacheSizeGB 1"
    with _container(servers.MONGO_IMAGE, command.split()) as pid:
        url = f"mongodb://127.0.0.1:{port}/?directConnection=true"
        servers.until(lambda: servers.answers(url), "MongoDB")
        client: pymongo.MongoClient[dict[str, Any]]
        with pymongo.MongoClient(url) as client:
            member = {"_id": 0, "host": f"127.0.0.1:{port}"}
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": [member]})
            servers.until(lambda: bool(client.admin.command("hello")["isWritablePrimary"]), "MongoDB")
            version = str(client.server_info()["version"])
        yield f"mongodb://127.0.0.1:{port}/?replicaSet=rs0", pid, version


@contextmanager
def _kafka() -> Iterator[tuple[str, int]]:
    address, controller = (f"127.0.0.1:{port}" for port in free_ports(2))
    settings = servers.kafka_settings(address, address, controller)
    named = [part for name, value in settings.items() for part in ("--env", f"{name}={value}")]
    with _container(servers.KAFKA_IMAGE, (), *named) as pid:
        servers.until(lambda: servers.has_broker(address), "Kafka")
        yield address, pid


@contextmanager
def _container(image: str, command: Sequence[str], *options: str) -> Iterator[int]:
    """Its first process."""
    name = f"clinic-bench-{uuid.uuid4().hex[:8]}"
    _docker("run", "--detach", "--rm", "--network", "host", "--name", name, *options, image, *command)
    try:
        yield int(_docker("inspect", "--format", "{{.State.Pid}}", name))
    finally:
        _docker("rm", "--force", "--volumes", name)


def _docker(*arguments: str) -> str:
    command = ("docker", *arguments)
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"docker {arguments[0]}: {ran.stderr.strip()}")
    return ran.stdout.strip()
