"""Events as they travel from one context to another. Times are aware UTC, in milliseconds."""

from datetime import datetime
from typing import Generic, TypeVar

from msgspec import Struct

Event = TypeVar("Event")


class Message(Struct, frozen=True, kw_only=True):
    """An event as it travels: the attributes of CloudEvents 1.0, the key that keeps its order, its data.

    A foreign producer's message may lack any of them: then `type` is empty, `time` or `data` None. The data
    is the same whenever the event is published again; `extensions`, names and values, may differ.
    """

    id: str
    type: str
    source: str
    subject: str
    time: datetime | None
    key: str
    data: bytes | None
    extensions: tuple[tuple[str, str], ...] = ()


def unreadable(event_id: str, subject: str) -> Message:
    """What an outbox hands over for an event that cannot be read: a message without a type."""
    return Message(id=event_id, type="", source="", subject=subject, time=None, key=subject, data=None)


class ClaimedMessage(Struct, frozen=True):
    """An event, when it was saved, and until when a relay holds it, by the process's `Monotonic` clock."""

    message: Message
    saved_at: datetime
    expires_at: float


class PublishResult(Struct, frozen=True):
    """A message, where the other side keeps it, and since when."""

    message: Message
    position: str
    at: datetime


class PublicationStatus(Struct, frozen=True):
    """When an event was saved, and when and where it was published since; None while it waits to be."""

    saved_at: datetime
    published_at: datetime | None = None
    position: str | None = None


class Origin(Struct, frozen=True, kw_only=True):
    """Where a message came from: its position in the transport, when, and at which attempt.

    The position is the same at each redelivery.
    """

    position: str
    published_at: datetime
    received_at: datetime
    attempts: int = 1


class Delivery(Struct, frozen=True, kw_only=True):
    """A message as it arrived, beside the raw key, headers and value that it was read from."""

    message: Message
    origin: Origin
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None


class Received(Struct, Generic[Event], frozen=True):
    """An event that was read, and where it came from."""

    event: Event
    origin: Origin
