"""What the Kafka adapters share: the cluster, its clients, its topic, and where a record stands in it."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as Record
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, TopicMetadata  # type: ignore[attr-defined]
from msgspec import Struct

from clinic.domain.errors import Misconfigured, Unavailable
from clinic.domain.messaging.ports import Telemetry

REFUSALS: Final = frozenset({
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.POLICY_VIOLATION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
})  # fmt: skip
"""How a cluster says that it will never make such a topic. Everything else may be better later."""
ADMIN_TIMEOUT: Final = 10.0
SAFE_REPLICATION: Final = 3
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MAX_MILLISECONDS: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)

Client = TypeVar("Client")


class KafkaConfig(Struct, frozen=True, kw_only=True):
    """A topic on a cluster. `options` go to every client as they are (TLS, SASL, …); they may hold
    secrets.
    """

    servers: str
    topic: str
    group: str
    partitions: int
    replication: int
    protocol: str
    options: Mapping[str, str]

    def client(
        self,
        kind: Callable[[dict[str, Any]], Client],
        required: Mapping[str, Any] | None = None,
        **defaults: Any,
    ) -> Client:
        """A client. What is `required` cannot be set by options. Raises `Misconfigured`, without repeating a
        value.
        """
        required = required or {}
        if taken := sorted(required.keys() & self.options.keys()):
            raise Misconfigured(
                f"CLINIC_KAFKA_OPTIONS cannot set {', '.join(taken)}: what is promised here rests on it"
            )
        own = {"bootstrap.servers": self.servers, "client.id": "clinic", "log_level": 2}
        configuration = (
            own
            | {name.replace("_", "."): value for name, value in defaults.items()}
            | dict(self.options)
            | dict(required)
        )
        try:
            return kind(configuration)
        except (KafkaException, TypeError, ValueError) as error:
            names = ", ".join(name for name in self.options if name in str(error)) or "one of them"
            raise Misconfigured(
                f"CLINIC_KAFKA_OPTIONS cannot be used: Kafka's client does not take {names}"
            ) from None


def place(record: Record) -> tuple[int, int]:
    """Partition and offset: what was delivered has both."""
    return record.partition() or 0, record.offset() or 0


def position(record: Record) -> str:
    partition, offset = place(record)
    return f"{record.topic()}/{partition}/{offset}"


def time(record: Record) -> datetime:
    """When it was published; a stranger may have written any number there."""
    return EPOCH + timedelta(milliseconds=min(max(0, record.timestamp()[1]), MAX_MILLISECONDS))


def make_topic(kafka: KafkaConfig, telemetry: Telemetry) -> None:
    """The topic with unlimited retention, unless it is there; a weaker one that is there gets a warning.

    Raises `Unavailable` without a cluster, `Misconfigured` where the topic is missing and cannot be made.
    """
    admin = kafka.client(AdminClient)
    try:
        if found := admin.list_topics(timeout=ADMIN_TIMEOUT).topics.get(kafka.topic):
            _warn_of_weakness(admin, kafka, found, telemetry)
            return
        topic = NewTopic(kafka.topic, kafka.partitions, kafka.replication, config=_wanted(kafka))
        admin.create_topics([topic], request_timeout=ADMIN_TIMEOUT)[kafka.topic].result()
    except KafkaException as error:
        reason = error.args[0]
        if reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return
        if reason.code() not in REFUSALS:
            raise Unavailable(f"Kafka at {kafka.servers} does not answer: {reason.str()}") from error
        raise Misconfigured(
            f"the topic {kafka.topic} is missing and cannot be made ({reason.str()}): make it with "
            f"{kafka.partitions} partitions, "
            f"replication {kafka.replication} and {_wanted(kafka)}, or allow this client to"
        ) from error


def _wanted(kafka: KafkaConfig) -> dict[str, str]:
    safe = (
        {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"}
        if kafka.replication >= SAFE_REPLICATION
        else {}
    )
    return {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", **safe}


def _warn_of_weakness(
    admin: AdminClient, kafka: KafkaConfig, topic: TopicMetadata, telemetry: Telemetry
) -> None:
    resource = ConfigResource(ConfigResource.Type.TOPIC, kafka.topic)
    try:
        found = admin.describe_configs([resource], request_timeout=ADMIN_TIMEOUT)[resource].result()
    except KafkaException:
        return  # not allowed to look: then it is not ours to judge either
    wanted = _wanted(kafka)
    weak = {
        name: found[name].value
        for name, value in wanted.items()
        if name in found and _is_weaker(name, found[name].value, value)
    }
    replication = min((len(partition.replicas) for partition in topic.partitions.values()), default=0)
    if replication < kafka.replication:
        weak["replication"], wanted["replication"] = str(replication), str(kafka.replication)
    if weak:
        telemetry(
            "topic is weaker than asked for",
            topic=kafka.topic,
            found=weak,
            wanted={name: wanted[name] for name in weak},
        )


def _is_weaker(name: str, found: str, wanted: str) -> bool:
    return int(found) < int(wanted) if name == "min.insync.replicas" else found != wanted
