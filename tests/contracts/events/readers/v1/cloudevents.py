"""What the transports share: a message as CloudEvents 1.0 headers and a value, and back.

Written in binary mode (the value is the data); read in binary and in structured mode (the value is the whole event).
See the Kafka protocol binding of CloudEvents 1.0.2.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from contracts.events.readers.v1.messages import Message

Headers = Sequence[tuple[str, bytes | None]]

STRUCTURED = "application/cloudevents+json"


def headers(message: Message) -> list[tuple[str, bytes]]:
    """The attributes as headers; the value beside them is the message's data."""
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": message.id,
        "ce_source": message.source,
        "ce_type": message.type,
        "ce_time": message.time.isoformat().replace("+00:00", "Z") if message.time else "",
        "ce_subject": message.subject,
        "content-type": "application/json",
    }
    return [(name, text.encode()) for name, text in attributes.items() if text]


def message(key: bytes | None, headers: Headers, value: bytes | None) -> Message:
    """The message in what arrived, whoever wrote it. What is no CloudEvent comes as a message without a type.

    Of a header that is repeated the last one counts; one that is null counts as missing.
    """
    named = {name.lower(): (content or b"").decode(errors="replace") for name, content in headers}
    if named.get("content-type", "").partition(";")[0].strip().lower() == STRUCTURED:
        return _structured(key, value)
    attributes = {name.removeprefix("ce_"): text for name, text in named.items() if name.startswith("ce_")}
    return _message(key, attributes, value)


def _structured(key: bytes | None, value: bytes | None) -> Message:
    try:
        event = msgspec.json.decode(value or b"", type=dict[str, msgspec.Raw])
        attributes = {name: msgspec.json.decode(raw) for name, raw in event.items() if name not in ("data", "data_base64")}
        data = bytes(event["data"]) if "data" in event else msgspec.json.decode(event.get("data_base64", b"null"), type=bytes | None)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return _message(key, {}, value)
    return _message(key, attributes, data)


def _message(key: bytes | None, attributes: Mapping[str, Any], data: bytes | None) -> Message:
    def text(name: str) -> str:
        found = attributes.get(name, "")
        return found if isinstance(found, str) else ""

    return Message(
        id=text("id"),
        type=text("type"),
        source=text("source"),
        subject=text("subject"),
        time=_time(text("time")),
        key=(key or b"").decode(errors="replace"),
        data=data,
    )


def _time(text: str) -> datetime | None:
    try:
        return msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return None
