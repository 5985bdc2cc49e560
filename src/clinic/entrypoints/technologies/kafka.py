"""The Kafka transport, for the containers."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from clinic.adapters.kafka.cluster import KafkaConfig
from clinic.adapters.kafka.publisher import KafkaPublisher
from clinic.adapters.kafka.subscription import KafkaSubscription
from clinic.entrypoints.technologies.factories import (
    Channel,
    FactoryContext,
    PublisherEnd,
    Secret,
    SubscriptionEnd,
    Transport,
)
from clinic.entrypoints.technologies.kafka_lag import KafkaLag

Topic = Annotated[str, Meta(pattern=r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}$")]
"""What Kafka takes as a topic's name."""
Partitions = Annotated[int, Meta(ge=1, le=10_000)]
"""As many as Kafka makes with one request."""
Replication = Annotated[int, Meta(ge=1, le=32_767)]
"""Kafka's protocol has 16 bits for it."""


class KafkaSettings(Struct, frozen=True, kw_only=True):
    """Read from CLINIC_KAFKA_…"""

    bootstrap_servers: str = "127.0.0.1:9092"
    topic: Topic = "clinic.appointments"
    partitions: Partitions = 6
    replication: Replication = 1
    protocol: Literal["classic", "consumer"] = "classic"
    options: Annotated[dict[str, str], Secret] = {}


Context = FactoryContext[KafkaSettings]


def _publisher(context: Context) -> PublisherEnd:
    return PublisherEnd.of(KafkaPublisher(_config(context), context.lease, context.telemetry))


def _subscription(context: Context) -> SubscriptionEnd:
    config = _config(context)
    subscription = KafkaSubscription(config, context.clock, context.telemetry)
    return SubscriptionEnd.of(subscription, KafkaLag(config).ask)


def _config(context: Context) -> KafkaConfig:
    its = context.settings
    return KafkaConfig(
        servers=its.bootstrap_servers,
        topic=its.topic,
        group=context.group,
        partitions=its.partitions,
        replication=its.replication,
        protocol=its.protocol,
        options=its.options,
    )


def _channel(context: Context) -> Channel:
    kafka = _config(context)
    is_secure = kafka.options.get("security.protocol", "").upper() in {"SSL", "SASL_SSL"}
    protocol = "kafka-secure" if is_secure else "kafka"
    hosts = filter(None, map(str.strip, kafka.servers.split(",")))
    return Channel(
        address=kafka.topic,
        description="A Kafka topic. Where the services make it, it keeps every message for ever "
        "(`retention.ms=-1`). Read it in a consumer group of your own: the financial service's is "
        f"`{kafka.group}`.",
        servers={
            f"broker{number}": {"host": host, "protocol": protocol} for number, host in enumerate(hosts, 1)
        },
        bindings={"kafka": {"topic": kafka.topic}},
        receive_bindings={"kafka": {"groupId": {"type": "string", "enum": [kafka.group]}}},
        message_bindings={"kafka": {"key": {"type": "string", "format": "uuid"}}},
    )


TRANSPORT = Transport(
    settings=KafkaSettings, publisher=_publisher, subscription=_subscription, channel=_channel
)
