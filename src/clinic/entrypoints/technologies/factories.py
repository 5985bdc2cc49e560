"""What a technology offers to the containers: its stores, its transport, and what they are made from."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

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


class FactoryContext(Struct, frozen=True, kw_only=True):
    """What a factory is handed. `options` are the settings of its technology, without their prefix.

    `shared` belongs to the process: a technology that lives in one keeps there what both contexts need.
    """

    clock: Clock
    sleep: Sleep
    monotonic: Monotonic
    telemetry: Telemetry
    lease: float
    group: str
    data_dir: Path
    shared: dict[str, Any]
    options: Mapping[str, Any] = {}


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


class PublisherEnd(Struct, frozen=True):
    """The appointment context's end of a transport."""

    resource: Resource
    publisher: Publisher


async def unknown() -> int | None:
    """The lag of a transport that cannot say."""
    return None


class SubscriptionEnd(Struct, frozen=True):
    """The financial context's end of a transport.

    `lag` says how many messages the group has not acknowledged, for people who watch; None where unknown.
    """

    resource: Resource
    subscription: Subscription
    lag: Callable[[], Awaitable[int | None]] = unknown


class Store(Struct, frozen=True):
    """A store's factories, one a context. `in_process`: what it keeps is seen by its own process alone."""

    appointment: Callable[[FactoryContext], AppointmentStore]
    financial: Callable[[FactoryContext], FinancialStore]
    in_process: bool = False


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


class Transport(Struct, frozen=True):
    """A transport's factories, one an end. `in_process`: both ends must be in one process."""

    publisher: Callable[[FactoryContext], PublisherEnd]
    subscription: Callable[[FactoryContext], SubscriptionEnd]
    channel: Callable[[FactoryContext], Channel]
    in_process: bool = False
