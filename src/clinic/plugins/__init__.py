"""Everything that a package outside needs for a transport or a store of its own: see docs/plugins.md.

What is not named here, or in the kit (`clinic.testing`), may change with any release.
"""

from clinic.adapters import cloudevents
from clinic.domain.errors import Conflict, Misconfigured, NotFound, Refused, Unavailable, Unreadable
from clinic.domain.messaging.messages import Delivery, Message, Origin, PublishResult
from clinic.domain.messaging.ports import (
    Clock,
    Monitored,
    Monotonic,
    Publisher,
    Resource,
    Sleep,
    Subscription,
    Telemetry,
)
from clinic.entrypoints.technologies.factories import (
    AppointmentStore,
    Channel,
    FactoryContext,
    FinancialStore,
    NoSettings,
    PublisherEnd,
    Secret,
    Store,
    SubscriptionEnd,
    Transport,
)
from clinic.plugins.pulled import PulledSubscription
from clinic.plugins.text_headers import text_delivery, text_headers

__all__ = [
    "AppointmentStore",
    "Channel",
    "Clock",
    "Conflict",
    "Delivery",
    "FactoryContext",
    "FinancialStore",
    "Message",
    "Misconfigured",
    "Monitored",
    "Monotonic",
    "NoSettings",
    "NotFound",
    "Origin",
    "PublishResult",
    "Publisher",
    "PublisherEnd",
    "PulledSubscription",
    "Refused",
    "Resource",
    "Secret",
    "Sleep",
    "Store",
    "Subscription",
    "SubscriptionEnd",
    "Telemetry",
    "Transport",
    "Unavailable",
    "Unreadable",
    "cloudevents",
    "text_delivery",
    "text_headers",
]
