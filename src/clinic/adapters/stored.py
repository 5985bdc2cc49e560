"""What a store keeps, read again. What something else has written there fails alone, and by its name."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, TypeVar

import msgspec

from clinic.domain.errors import ClinicError, Unreadable
from clinic.domain.messaging.messages import Message, unreadable

T = TypeVar("T")


def restored(type_: type[T], name: object, fields: Callable[[], Mapping[str, Any]]) -> T:
    """What is kept under that name. Raises `Unreadable`, whatever is wrong with its fields."""
    try:
        return msgspec.convert(fields(), type_)
    except Exception as error:
        shown = name.hex() if isinstance(name, bytes) else name
        sentence = f"{type_.__name__} {shown} cannot be read: {error}"
        raise Unreadable(sentence, code="stored-unreadable") from error


def event_of(event_id: str, subject: str, read: Callable[[], Message | Literal[False]]) -> Message:
    """The event of an outbox that is kept under these; without a type where it is another, or none."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):
        if (event := read()) and (event.id, event.subject) == (event_id, subject):
            return event
    return unreadable(event_id, subject)


def attempt(read: Callable[[Any], T], row: object) -> T | ClinicError:
    """What it returns or raises: the outcome of one among many."""
    try:
        return read(row)
    except ClinicError as error:
        return error
