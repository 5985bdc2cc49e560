"""What the transports share: a message as CloudEvents 1.0 headers and a value, and back.

Written in binary mode (the value is the data); read in both (in structured mode the value is the event).
See the Kafka protocol binding of CloudEvents 1.0.2.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from clinic.domain.messaging.messages import Delivery, Message, Origin
from clinic.domain.times import cut

Headers = Sequence[tuple[str, bytes | None]]

_Aware = Annotated[datetime, Meta(tz=True)]

STRUCTURED = "application/cloudevents+json"
CORE: Final = frozenset(
    {"specversion", "id", "source", "type", "time", "subject", "datacontenttype", "dataschema", "data"}
)
"""Names that CloudEvents 1.0 keeps for itself."""
EXTENSION_NAME: Final = re.compile("[a-z0-9]{1,20}")
MAX_EXTENSION: Final = 1024
"""Characters of an extension's value."""
MAX_EXTENSIONS: Final = 16
HOP: Final = "hop."
"""Begins the name of an extension that is a plain header of this one hop, and no attribute of the event."""

_epoch = datetime(1970, 1, 1, tzinfo=UTC)
_last = (datetime.max.replace(tzinfo=UTC) - _epoch) // timedelta(milliseconds=1)


def time(milliseconds: object) -> datetime:
    """A moment; a foreign producer may have written anything there."""
    known = milliseconds if isinstance(milliseconds, int) else 0
    return _epoch + timedelta(milliseconds=min(max(0, known), _last))


def delivery(
    key: object, headers: tuple[tuple[str, bytes | None], ...], value: object, origin: Origin
) -> Delivery:
    """What arrived, from any producer; key and value are stored as text by some."""
    key, value = as_bytes(key), as_bytes(value)
    read = message(key, headers, value)
    return Delivery(message=read, origin=origin, key=key, headers=headers, value=value)


def as_bytes(stored: object) -> bytes | None:
    """Text as UTF-8, a number as its digits."""
    return stored if stored is None or isinstance(stored, bytes) else str(stored).encode()


def headers(message: Message) -> list[tuple[str, bytes]]:
    """The attributes as headers; the value beside them is the message's data."""
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": message.id,
        "ce_source": message.source,
        "ce_type": message.type,
        "ce_time": message.time.isoformat().replace("+00:00", "Z") if message.time else "",
        "ce_subject": message.subject,
        **{f"ce_{name}".removeprefix(f"ce_{HOP}"): value for name, value in message.extensions},
        "content-type": "application/json",
    }
    return [(name, text.encode()) for name, text in attributes.items() if text]


def extensions(attributes: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The extensions among these attributes, whoever wrote them: the first `MAX_EXTENSIONS`.

    A name that CloudEvents does not allow, or a value that is empty or too long, is left out.
    """
    allowed = [
        (name, value)
        for name, value in attributes
        if name not in CORE and 0 < len(value) <= MAX_EXTENSION and EXTENSION_NAME.fullmatch(name)
    ]
    return tuple(allowed[:MAX_EXTENSIONS])


def message(key: bytes | None, headers: Headers, value: bytes | None) -> Message:
    """The message in what arrived. What is not a CloudEvent becomes a message without a type.

    Of a header that is repeated the last one counts; one that is null counts as missing.
    """
    attributes, content_type = {}, ""
    for written, content in headers:
        name, text = written.lower(), content.decode(errors="replace") if content else ""
        if name.startswith("ce_"):
            attributes[name[3:]] = text
        elif name == "content-type":
            content_type = text
    if content_type.partition(";")[0].strip().lower() == STRUCTURED:
        return _structured(key, value)
    return _message(key, attributes, value)


def _structured(key: bytes | None, value: bytes | None) -> Message:
    try:
        event = msgspec.json.decode(value or b"", type=dict[str, msgspec.Raw])
        attributes = {
            name: _text(name, msgspec.json.decode(raw))
            for name, raw in event.items()
            if name not in ("data", "data_base64")
        }
        encoded = event.get("data_base64", b'""')
        data = bytes(event["data"]) if "data" in event else msgspec.json.decode(encoded, type=bytes)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return _message(key, {}, value)
    return _message(key, attributes, data)


def _message(key: bytes | None, attributes: Mapping[str, str], data: bytes | None) -> Message:
    return Message(
        id=attributes.get("id", ""),
        type=attributes.get("type", ""),
        source=attributes.get("source", ""),
        subject=attributes.get("subject", ""),
        time=_time(attributes.get("time", "")),
        key=(key or b"").decode(errors="replace"),
        data=data,
        extensions=extensions(attributes.items()),
    )


def _text(name: str, value: object) -> str:
    """An attribute's value as a string, as CloudEvents writes it. Empty for what it does not allow."""
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, int) and name not in CORE else ""


def _time(text: str) -> datetime | None:
    with suppress(msgspec.ValidationError):
        return msgspec.convert(cut(text), _Aware)
    return None
