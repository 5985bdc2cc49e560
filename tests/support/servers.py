"""Real servers for a run of the tests: containers that are started when the first test wants them."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pymongo
import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from pymongo.errors import PyMongoError
from testcontainers.core.container import DockerContainer

from support.ports import free_ports

MONGO_IMAGE = os.environ.get("CLINIC_TEST_MONGO_IMAGE", "mongo:5.0")
KAFKA_IMAGE = os.environ.get("CLINIC_TEST_KAFKA_IMAGE", "apache/kafka:4.3.1")
START_TIMEOUT = 180.0


def require_docker() -> None:
    """Skip the test, saying why, where no Docker engine answers. In CI the test fails: there, nothing may be
    left out.
    """
    reason = missing_docker()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"needs Docker: {reason}", pytrace=False)
    pytest.skip(f"needs Docker: {reason}")


def missing_docker() -> str | None:
    """Why no Docker engine answers; None where one does."""
    if not shutil.which("docker"):
        return "there is no command `docker`"
    asked = subprocess.run(("docker", "version"), capture_output=True, text=True, check=False)  # noqa: S607 — wherever it is
    return None if asked.returncode == 0 else asked.stderr.strip()


@contextmanager
def mongo(*, replica_set: bool) -> Iterator[str]:
    """A server of one node; the address under which a client finds it."""
    require_docker()
    (port,) = free_ports(1)
    # The port is the same inside and outside, so that a replica set names itself by an address that holds in
    # both places.
    command = f"mongod --bind_ip_all --port {port} --setParameter enableTestCommands=1" + (
        " --replSet rs0" if replica_set else ""
    )
    container = DockerContainer(MONGO_IMAGE).with_bind_ports(port, port).with_command(command)
    with container:
        url = f"mongodb://127.0.0.1:{port}/?directConnection=true"
        until(lambda: answers(url), "MongoDB")
        if replica_set:
            client: pymongo.MongoClient[dict[str, Any]]
            with pymongo.MongoClient(url) as client:
                client.admin.command(
                    "replSetInitiate", {"_id": "rs0", "members": [{"_id": 0, "host": f"127.0.0.1:{port}"}]}
                )
                until(lambda: bool(client.admin.command("hello")["isWritablePrimary"]), "MongoDB's primary")
        yield url if not replica_set else f"mongodb://127.0.0.1:{port}/?replicaSet=rs0"


@contextmanager
def kafka(**more: str) -> Iterator[str]:
    """A broker in KRaft mode, with more settings where they are given; its bootstrap address."""
    require_docker()
    (port,) = free_ports(1)
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(port, port)
    for name, value in (kafka_settings(f"127.0.0.1:{port}", f"0.0.0.0:{port}") | more).items():
        container = container.with_env(name, value)
    with container:
        address = f"127.0.0.1:{port}"
        until(lambda: has_broker(address), "Kafka")
        yield address


def kafka_settings(address: str, listener: str, controller: str = "127.0.0.1:9093") -> dict[str, str]:
    """Of a single node that listens there, and that clients find under this address."""
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": f"PLAINTEXT://{listener},CONTROLLER://{controller}",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{address}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": f"1@{controller}",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        # A member of the new protocol that joins, or dies, is noticed as soon as one of the old: by default
        # it takes 5 s, or 45 s.
        "KAFKA_GROUP_CONSUMER_MIN_HEARTBEAT_INTERVAL_MS": "500",
        "KAFKA_GROUP_CONSUMER_HEARTBEAT_INTERVAL_MS": "500",
        "KAFKA_GROUP_CONSUMER_MIN_SESSION_TIMEOUT_MS": "6000",
        "KAFKA_GROUP_CONSUMER_SESSION_TIMEOUT_MS": "6000",
    }


def answers(url: str) -> bool:
    client: pymongo.MongoClient[dict[str, Any]]
    with suppress(PyMongoError), pymongo.MongoClient(url, serverSelectionTimeoutMS=500) as client:
        client.admin.command("ping")
        return True
    return False


def has_broker(address: str) -> bool:
    with suppress(Exception):
        return bool(
            AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=1).brokers
        )
    return False


def has_coordinator(address: str) -> bool:
    consumer = Consumer({"bootstrap.servers": address, "group.id": "anybody", "log_level": 0})
    try:
        return bool(consumer.committed([TopicPartition("any", 0)], timeout=1))
    except KafkaException:
        return False
    finally:
        consumer.close()


def until(holds: Callable[[], bool], name: str) -> None:
    give_up = time.monotonic() + START_TIMEOUT
    while not holds():
        if time.monotonic() > give_up:
            raise TimeoutError(f"{name} did not start within {START_TIMEOUT:.0f} s")
        time.sleep(0.1)
