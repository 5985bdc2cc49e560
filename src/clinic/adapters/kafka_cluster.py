"""What the Kafka adapters share: the cluster and its topic, and where a record stands in it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as Record
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]
from msgspec import Struct

from clinic.domain.errors import Misconfigured, Unavailable
from clinic.domain.messaging import Notices

NO_ANSWER: Final = frozenset({KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT_QUEUE})
PATIENCE: Final = 10.0
SAFE_REPLICATION: Final = 3
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Kafka(Struct, frozen=True, kw_only=True):
    """A topic on a cluster. `options` go to every client as they are (TLS, SASL, …); they may hold secrets."""

    servers: str
    topic: str
    group: str
    partitions: int
    replication: int
    protocol: str
    options: Mapping[str, str]

    def client(self, **more: Any) -> dict[str, Any]:
        """The configuration of a client."""
        own = {"bootstrap.servers": self.servers, "client.id": "clinic", "log_level": 2}
        return own | {name.replace("_", "."): value for name, value in more.items()} | dict(self.options)


def place(record: Record) -> tuple[int, int]:
    """Partition and offset: what was delivered has both."""
    return record.partition() or 0, record.offset() or 0


def position(record: Record) -> str:
    partition, offset = place(record)
    return f"{record.topic()}/{partition}/{offset}"


def time(record: Record) -> datetime:
    return EPOCH + timedelta(milliseconds=max(0, record.timestamp()[1]))


def make_topic(kafka: Kafka, notices: Notices) -> None:
    """The topic with unlimited retention, unless it is there; a weaker one that is there gets a warning."""
    admin = AdminClient(kafka.client())
    try:
        if kafka.topic in admin.list_topics(timeout=PATIENCE).topics:
            _warn_of_weakness(admin, kafka, notices)
            return
        topic = NewTopic(kafka.topic, kafka.partitions, kafka.replication, config=_wanted(kafka))
        admin.create_topics([topic], request_timeout=PATIENCE)[kafka.topic].result()
    except KafkaException as error:
        reason = error.args[0]
        if reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return
        if reason.retriable() or reason.code() in NO_ANSWER:
            raise Unavailable(f"Kafka at {kafka.servers} does not answer: {reason.str()}") from error
        raise Misconfigured(
            f"the topic {kafka.topic} is missing and cannot be made ({reason.str()}): make it with {kafka.partitions} partitions, "
            f"replication {kafka.replication} and {_wanted(kafka)}, or allow this client to"
        ) from error


def _wanted(kafka: Kafka) -> dict[str, str]:
    safe = {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"} if kafka.replication >= SAFE_REPLICATION else {}
    return {"retention.ms": "-1", "retention.bytes": "-1", **safe}


def _warn_of_weakness(admin: AdminClient, kafka: Kafka, notices: Notices) -> None:
    resource = ConfigResource(ConfigResource.Type.TOPIC, kafka.topic)
    try:
        found = admin.describe_configs([resource], request_timeout=PATIENCE)[resource].result()
    except KafkaException:
        return  # not allowed to look: then it is not ours to judge either
    weak = {name: found[name].value for name, value in _wanted(kafka).items() if name in found and found[name].value != value}
    if weak:
        notices("topic is weaker than asked for", topic=kafka.topic, found=weak, wanted=_wanted(kafka))
