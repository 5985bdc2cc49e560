"""What a technology offers to the containers: its stores, its transport, and what they are made from."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

from msgspec import Meta, Struct

from clinic.domain.appointment.ports import Appointments
from clinic.domain.financial.ports import Charges
from clinic.domain.messaging.dead_letters import DeadLetters
from clinic.domain.messaging.ports import (
    Clock,
    Monotonic,
    Outbox,
    Publisher,
    Resource,
    Sleep,
    Subscription,
    Telemetry,
)

S = TypeVar("S", bound=Struct)

Secret: Final = Meta(extra={"secret": True})
"""Marks a setting whose value is never printed or repeated: `url: Annotated[str, Secret]`."""


class NoSettings(Struct, frozen=True):
    """Of a technology that has nothing to set."""


class FactoryContext(Struct, Generic[S], frozen=True, kw_only=True):
    """What a factory is handed; `settings` are those of its technology.

    `lease` is the relay's, in seconds: a publication must have answered by then. `group` is the consumer
    group's name, `data_dir` the folder for files, which may not exist yet. `shared` belongs to the process: a
    technology that lives in one keeps there what both contexts need.
    """

    settings: S
    clock: Clock
    sleep: Sleep
    monotonic: Monotonic
    telemetry: Telemetry
    lease: float
    group: str
    data_dir: Path
    shared: dict[str, Any]


class AppointmentStore(Struct, frozen=True):
    """The appointment context's ports, and the resource that is open while they are used."""

    resource: Resource
    appointments: Appointments
    outbox: Outbox


class FinancialStore(Struct, frozen=True):
    """The financial context's ports, and the resource that is open while they are used."""

    resource: Resource
    charges: Charges
    dead_letters: DeadLetters


class OpenedPublisher(Resource, Publisher, Protocol):
    """A publisher that is the resource, too."""


class PublisherEnd(Struct, frozen=True):
    """The appointment context's end of a transport, and the resource that is open while it is used."""

    resource: Resource
    publisher: Publisher

    @classmethod
    def of(cls, both: OpenedPublisher) -> "PublisherEnd":
        return cls(both, both)


async def unknown() -> int | None:
    """The lag of a transport that cannot say."""
    return None


class OpenedSubscription(Resource, Subscription, Protocol):
    """A subscription that is the resource, too."""


class SubscriptionEnd(Struct, frozen=True):
    """The financial context's end of a transport, and the resource that is open while it is used.

    `lag` says how many messages the group has not acknowledged, for people who watch; None where unknown.
    """

    resource: Resource
    subscription: Subscription
    lag: Callable[[], Awaitable[int | None]] = unknown

    @classmethod
    def of(
        cls, both: OpenedSubscription, lag: Callable[[], Awaitable[int | None]] = unknown
    ) -> "SubscriptionEnd":
        return cls(both, both, lag)


class Store(Struct, Generic[S], frozen=True, kw_only=True):
    """A store's factories, one a context.

    `settings` is a struct whose fields are read from CLINIC_, the store's name and the field's, in capitals.
    `in_process`: what it keeps is seen by its own process alone. `in_data_dir`: it keeps files there, so
    the space on that disk is worth watching.
    """

    settings: type[S]
    appointment: Callable[[FactoryContext[S]], AppointmentStore]
    financial: Callable[[FactoryContext[S]], FinancialStore]
    in_process: bool = False
    in_data_dir: bool = False


class Channel(Struct, frozen=True, kw_only=True):
    """Where a transport's events are, for programs that are not the clinic's.

    `servers` and the bindings are in AsyncAPI's words; empty where no other program can read the events.
    """

    address: str | None
    description: str
    servers: Mapping[str, Mapping[str, str]] = {}
    bindings: Mapping[str, Any] = {}
    receive_bindings: Mapping[str, Any] = {}
    message_bindings: Mapping[str, Any] = {}


class Transport(Struct, Generic[S], frozen=True, kw_only=True):
    """A transport's factories, one an end.

    `settings`, `in_process` and `in_data_dir` are as a store's; `in_process`: both ends must be in one
    process. `one_member`: a group has one member at a time, and a second is refused.
    """

    settings: type[S]
    publisher: Callable[[FactoryContext[S]], PublisherEnd]
    subscription: Callable[[FactoryContext[S]], SubscriptionEnd]
    channel: Callable[[FactoryContext[S]], Channel]
    in_process: bool = False
    in_data_dir: bool = False
    one_member: bool = False
