"""The Kafka transport, for the containers."""

from clinic.adapters.kafka.cluster import KafkaConfig
from clinic.adapters.kafka.publisher import KafkaPublisher
from clinic.adapters.kafka.subscription import KafkaSubscription
from clinic.entrypoints.technologies.factories import (
    Channel,
    FactoryContext,
    PublisherEnd,
    SubscriptionEnd,
    Transport,
)
from clinic.entrypoints.technologies.kafka_lag import KafkaLag


def _publisher(context: FactoryContext) -> PublisherEnd:
    publisher = KafkaPublisher(_config(context), context.lease, context.telemetry)
    return PublisherEnd(publisher, publisher)


def _subscription(context: FactoryContext) -> SubscriptionEnd:
    config = _config(context)
    subscription = KafkaSubscription(config, context.clock, context.telemetry)
    return SubscriptionEnd(subscription, subscription, KafkaLag(config).ask)


def _config(context: FactoryContext) -> KafkaConfig:
    return KafkaConfig(
        servers=context.options["bootstrap_servers"],
        topic=context.options["topic"],
        group=context.group,
        partitions=context.options["partitions"],
        replication=context.options["replication"],
        protocol=context.options["protocol"],
        options=context.options["options"],
    )


def _channel(context: FactoryContext) -> Channel:
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


TRANSPORT = Transport(_publisher, _subscription, _channel)
