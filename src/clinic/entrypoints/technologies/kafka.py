"""The Kafka transport, for the containers."""

from clinic.adapters.kafka.cluster import KafkaConfig
from clinic.adapters.kafka.publisher import KafkaPublisher
from clinic.adapters.kafka.subscription import KafkaSubscription
from clinic.entrypoints.technologies.factories import FactoryContext, PublisherEnd, SubscriptionEnd, Transport


def _publisher(context: FactoryContext) -> PublisherEnd:
    publisher = KafkaPublisher(_config(context), context.lease, context.telemetry)
    return PublisherEnd(publisher, publisher)


def _subscription(context: FactoryContext) -> SubscriptionEnd:
    subscription = KafkaSubscription(_config(context), context.clock, context.telemetry)
    return SubscriptionEnd(subscription, subscription)


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


TRANSPORT = Transport(_publisher, _subscription)
