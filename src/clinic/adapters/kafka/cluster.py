"""What the Kafka adapters share: the cluster, its clients, the topic and a record's position in it."""

import logging
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from importlib.resources import files
from time import monotonic, sleep
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka import Message as Record
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    TopicDescription,
    TopicMetadata,
)
from msgspec import Struct

from clinic.domain.errors import Misconfigured, Unavailable
from clinic.domain.messaging.ports import Telemetry

REFUSALS: Final = frozenset({
    KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.INVALID_CONFIG, KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR, KafkaError.POLICY_VIOLATION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.TOPIC_EXCEPTION,
})  # fmt: skip
"""The cluster's answers that no retry changes: this client will never make such a topic."""
_reserved = (files(__package__) / "reserved_options.txt").read_text()
NOT_OPTIONS: Final = frozenset(re.findall(r"^[a-z]\S*$", _reserved, re.MULTILINE))
SILENT: Final = logging.Logger("librdkafka", logging.CRITICAL + 1)  # noqa: LOG001 — no configuration reaches it
"""librdkafka would write to stderr from its own threads, which blocks them while nobody reads it."""
ADMIN_TIMEOUT: Final = 10.0
SAFE_REPLICATION: Final = 3

Client = TypeVar("Client")


class KafkaConfig(Struct, frozen=True, kw_only=True):
    """A topic on a cluster. Every client gets `options` as they are (TLS, SASL, …); they may hold secrets."""

    servers: str
    topic: str
    group: str
    partitions: int
    replication: int
    protocol: str
    options: Mapping[str, str]

    def client(
        self, kind: Callable[[dict[str, Any]], Client], required: Mapping[str, Any], **defaults: Any
    ) -> Client:
        """A client; options override only `defaults`. Raises `Misconfigured`, never repeating a value."""
        required = {"bootstrap.servers": self.servers, "allow.auto.create.topics": False, **required}
        if taken := sorted((required.keys() | NOT_OPTIONS) & self.options.keys()):
            raise Misconfigured(
                f"CLINIC_KAFKA_OPTIONS cannot set {', '.join(taken)}: what is promised here rests on it"
            )
        named = {name.replace("_", "."): value for name, value in defaults.items()}
        own = {"client.id": "clinic", "log_level": 2}
        required["logger"] = SILENT
        try:
            return kind(own | named | dict(self.options) | required)
        except (KafkaException, TypeError, ValueError) as error:
            names = ", ".join(name for name in self.options if name in str(error)) or "one of them"
            raise Misconfigured(
                f"CLINIC_KAFKA_OPTIONS cannot be used: Kafka's client does not take {names}"
            ) from None


def offset(record: Record) -> tuple[int, int]:
    """Partition and offset: what was delivered has both."""
    return record.partition() or 0, record.offset() or 0


def position(record: Record, topic_id: str) -> str:
    """The topic's name, its id, partition and offset. A topic made anew has another id."""
    return f"{record.topic()}/{topic_id}/{record.partition() or 0}/{record.offset() or 0}"


class Topic:
    """The topic, and the id that tells it from an earlier one of that name."""

    def __init__(self, kafka: KafkaConfig, telemetry: Telemetry) -> None:
        self._kafka = kafka
        self._telemetry = telemetry
        self._admin = kafka.client(AdminClient, {})

    def make(self) -> str:
        """Its id. Makes it, with unlimited retention, where it is missing; warns of a weaker one.

        Raises `Unavailable` without a cluster, `Misconfigured` where it is missing and cannot be made.
        """
        kafka = self._kafka
        try:
            if found := self._admin.list_topics(timeout=ADMIN_TIMEOUT).topics.get(kafka.topic):
                _warn_if_weak(self._admin, kafka, found, self._telemetry)
            else:
                topic = NewTopic(kafka.topic, kafka.partitions, kafka.replication, config=_wanted(kafka))
                self._admin.create_topics([topic], request_timeout=ADMIN_TIMEOUT)[kafka.topic].result()
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() in REFUSALS:
                raise Misconfigured(
                    f"the topic {kafka.topic} is missing and cannot be made ({reason.str()}): make it with "
                    f"{kafka.partitions} partitions, "
                    f"replication {kafka.replication} and {_wanted(kafka)}, or allow this client to"
                ) from error
            if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise Unavailable(f"Kafka at {kafka.servers} does not answer: {reason.str()}") from error
        return self._id_once_known()

    def ask(self) -> "Future[TopicDescription]":
        """Ask for its id; `id_of` reads the answer."""
        topics = TopicCollection([self._kafka.topic])
        return self._admin.describe_topics(topics, request_timeout=ADMIN_TIMEOUT)[self._kafka.topic]

    def _id_once_known(self) -> str:
        give_up = monotonic() + ADMIN_TIMEOUT
        while True:
            try:
                return id_of(self.ask().result())
            except KafkaException as error:  # a topic that was just made is not known everywhere yet
                unknown = error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
                if not unknown or monotonic() > give_up:
                    reason = error.args[0].str()
                    raise Unavailable(f"Kafka does not describe {self._kafka.topic}: {reason}") from error
            sleep(0.05)


def id_of(topic: TopicDescription) -> str:
    """As Kafka's own tools write it."""
    return str(topic.topic_id).replace("+", "-").replace("/", "_")


def _wanted(kafka: KafkaConfig) -> dict[str, str]:
    wanted = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
    if kafka.replication >= SAFE_REPLICATION:
        wanted |= {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"}
    return wanted


def _warn_if_weak(admin: AdminClient, kafka: KafkaConfig, topic: TopicMetadata, telemetry: Telemetry) -> None:
    resource = ConfigResource(ConfigResource.Type.TOPIC, kafka.topic)
    try:
        found = admin.describe_configs([resource], request_timeout=ADMIN_TIMEOUT)[resource].result()
    except KafkaException:
        found = {}  # not allowed to look: what its metadata tell is judged all the same
    replicas = [len(partition.replicas) for partition in topic.partitions.values()]
    counts = {"partitions": str(len(replicas)), "replication": str(min(replicas, default=0))}
    has = {name: entry.value for name, entry in found.items()} | counts
    wanted = _wanted(kafka) | {"partitions": str(kafka.partitions), "replication": str(kafka.replication)}
    weak = [name for name in wanted if name in has and _is_weaker(has[name], wanted[name])]
    if weak:
        telemetry(
            "topic is weaker than asked for",
            topic=kafka.topic,
            found={name: has[name] for name in weak},
            wanted={name: wanted[name] for name in weak},
        )


def _is_weaker(found: str, wanted: str) -> bool:
    return int(found) < int(wanted) if wanted.isdecimal() else found != wanted
