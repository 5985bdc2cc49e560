"""NATS JetStream as a transport of clinic: `CLINIC_TRANSPORT=nats`."""

from clinic.plugins import Channel, FactoryContext, PublisherEnd, SubscriptionEnd, Transport
from clinic_nats.ends import NatsPublisher, NatsSettings, NatsSubscription


def _channel(context: FactoryContext[NatsSettings]) -> Channel:
    return Channel(
        address=f"{context.settings.stream}.finished",
        description="The subject of a JetStream stream that keeps every message, CloudEvents with headers in "
        "percent-encoding. Read it with a consumer of your own.",
    )


TRANSPORT = Transport(
    settings=NatsSettings,
    publisher=lambda context: PublisherEnd.of(NatsPublisher(context)),
    subscription=lambda context: SubscriptionEnd.of(NatsSubscription(context)),
    channel=_channel,
    one_member=True,
)
