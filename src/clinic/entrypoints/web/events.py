"""The AsyncAPI document of a service: the event that it sends or receives, made from the code for it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from clinic.adapters import cloudevents
from clinic.domain.events import (
    FINISHED,
    FINISHED_V1,
    SOURCE,
    AppointmentFinished,
    FinishedDataV1,
    to_message,
)
from clinic.domain.messaging.messages import Message
from clinic.domain.money import Money
from clinic.entrypoints.technologies.factories import Channel

Document = dict[str, Any]

ASYNCAPI: Final = "3.1.0"

_appointment = UUID("84ab6121-c4a8-4684-8cc2-b03024ec0f1d")
EXAMPLE: Final[Message] = replace(
    to_message(
        AppointmentFinished(
            appointment_id=_appointment,
            physician_id=UUID("8c9b1b0e-5d3f-4c39-9a53-0b9d3b1f8f10"),
            patient_id=UUID("2f1c7f3a-6b0c-4a57-8f6e-7f9f1d2b3c4d"),
            price=Money("200.00"),
            start=datetime(2020, 12, 1, 13, tzinfo=UTC),
            end=datetime(2020, 12, 1, 14, tzinfo=UTC),
        )
    ),
    extensions=(
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("recordedtime", "2020-12-01T14:00:00.007Z"),
        (f"{cloudevents.HOP}traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01"),
    ),
)

MOMENT: Final = {"format": "date-time", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
TRACEPARENT: Final = "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
FIELDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "appointment_id": {"description": "Which appointment is over; the key of the message, too."},
    "physician_id": {"description": "Who saw the patient."},
    "patient_id": {"description": "Who was seen."},
    "price": {
        "type": "string",
        "pattern": r"^(0|[1-9][0-9]{0,12})\.[0-9]{2}$",
        "description": "The price of an hour, exact: read it as a decimal, not as a float. Not the charge.",
    },
    "start": {**MOMENT, "description": "When it started: UTC, in whole seconds."},
    "end": {**MOMENT, "description": "When it ended: UTC, in whole seconds, not before the start."},
}
"""What the struct does not say of each field as it is written."""
HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ce_specversion": {"const": "1.0", "description": "The version of CloudEvents."},
    "ce_id": {
        "format": "uuid",
        "description": f"The event's id, the same whenever it is sent: UUIDv5 of the appointment's id and "
        f"`{FINISHED_V1}`.",
    },
    "ce_source": {"const": SOURCE, "description": "Who sent it."},
    "ce_type": {"const": FINISHED_V1, "description": "What it says, and in which version."},
    "ce_time": {**MOMENT, "description": "When it happened: the end of the appointment."},
    "ce_subject": {"format": "uuid", "description": "Whom it is about: the appointment's id."},
    "ce_traceparent": {
        "pattern": TRACEPARENT,
        "description": "The trace that the finish belongs to (W3C Trace Context): an extension, the same at "
        "each sending. It may be missing.",
    },
    "ce_recordedtime": {
        "format": "date-time",
        "description": "When the event was saved, in milliseconds: an extension. It may be missing.",
    },
    "traceparent": {
        "pattern": TRACEPARENT,
        "description": "The trace of this one sending: no attribute of the event. It may be missing.",
    },
    "content-type": {"const": "application/json", "description": "Binary mode: the value is the data."},
}
"""What each header holds. Which ones there are, the transports say."""
OPTIONAL: Final = frozenset({"ce_recordedtime", "ce_traceparent", "traceparent"})
CONTENT: Final = "content-type"

Rules = Mapping[str, str]


class Events(Struct, frozen=True):
    """A service's AsyncAPI document, and the rules in its description by their titles."""

    document: Document
    rules: Mapping[str, Rules]


READING: Final[Rules] = {
    "Know it by its type": "`ce_type` names the event and its version. Ignore other events. Never ignore "
    f"another version of this one (`{FINISHED}.` and anything else): set it aside and tell a person, or a "
    "finish is lost.",
    "Ignore what you do not know": "Fields may be added to the data, and `ce_` headers to the message, "
    "without a new version. Never refuse a message for one of them.",
    "Expect it again": "An event arrives at least once; a repeat may come at once, after weeks, or beside "
    "the first. `ce_id` is the same each time, and so is the data, byte for byte; extensions may differ. "
    "Do your work once for each `ce_id`.",
    "Rest on the order of one key only": "The key is the appointment's id. Messages of one key arrive in "
    "order, apart from repeats; those of different keys in any order.",
    "Pass over a message without a value": "It says nothing: somebody may have written a tombstone.",
}
"""What a consumer must do."""
CHARGING: Final[Rules] = {
    "Types": f"`{FINISHED_V1}` is charged. Other events are ignored. Another version of this one, or a "
    "message without a type, becomes a dead letter: kept with its reason until a person replays or "
    "discards it.",
    "Fields": "Fields and headers that are not known here are ignored. Data that lacks a field, or holds "
    "what it cannot be, becomes a dead letter. A price may also be a JSON number of at most two decimals, "
    "and a time may be of any zone and finer than seconds: it is cut to its second.",
    "Repeats": "However often an event arrives, its appointment is charged once, and the first charge stays.",
    "A message without a value": "It is passed over.",
    "Modes": "CloudEvents in binary mode, as the clinic sends it, and in structured mode "
    f"(`{CONTENT}: {cloudevents.STRUCTURED}`).",
}
"""What the financial service does with a message."""
CHANGING: Final[Rules] = {
    "Under one type": f"Under `{FINISHED_V1}`, no required field is added, removed, renamed or narrowed, "
    "and none changes its meaning. Optional fields and headers may be added with any release.",
    "A new version": f"Any other change gets a new type (`{FINISHED}.v2`). A release announces it before it "
    "is sent: upgrade the consumers first. The event keeps its `ce_id` in every version.",
}
"""What may change, and when."""


def sent(channel: Channel) -> Events:
    """What the appointment service sends over this channel."""
    operation = {
        "action": "send",
        "summary": "Tell other programs that an appointment is over.",
        "description": "Sent once the finish is saved, and again whenever it is not certain that it arrived.",
    }
    rules = {"What a consumer must do": READING, "What may change, and when": CHANGING}
    messages = {"Finished": _binary(channel)}
    return _events("appointment", "Appointments", "sendFinished", operation, channel, rules, messages)


def received(channel: Channel) -> Events:
    """What the financial service receives over this channel."""
    operation: Document = {
        "action": "receive",
        "summary": "Charge the appointment that is over.",
        "description": "Acknowledged once the charge, or the dead letter, is saved.",
        **_given(bindings=channel.receive_bindings),
    }
    messages = {"Finished": _binary(channel), "FinishedStructured": _structured(channel)}
    rules = {"What happens to a message": CHARGING, "What may change, and when": CHANGING}
    return _events("financial", "Charges", "chargeFinished", operation, channel, rules, messages)


def _events(
    service: str,
    title: str,
    name: str,
    operation: Mapping[str, Any],
    channel: Channel,
    rules: Mapping[str, Rules],
    messages: Mapping[str, Document],
) -> Events:
    where: Document = {
        "address": channel.address,
        "title": "Finished appointments",
        "description": channel.description,
        "messages": {each: {"$ref": f"#/components/messages/{each}"} for each in messages},
        **_given(
            servers=[{"$ref": f"#/servers/{each}"} for each in channel.servers], bindings=channel.bindings
        ),
    }
    references = [{"$ref": f"#/channels/finished/messages/{each}"} for each in messages]
    document = {
        "asyncapi": ASYNCAPI,
        "id": f"urn:clinic:{service}",
        "info": {
            "title": f"{title}: events",
            "version": version("clinic"),
            "description": "\n\n".join(_markdown(*section) for section in rules.items()),
            "license": {"name": "MIT"},
            "tags": [{"name": "events"}],
        },
        "defaultContentType": "application/json",
        **_given(servers=channel.servers),
        "channels": {"finished": where},
        "operations": {
            name: {**operation, "channel": {"$ref": "#/channels/finished"}, "messages": references}
        },
        "components": {"messages": messages, "schemas": {"FinishedData": _data()}},
    }
    return Events(document, rules)


def _given(**fields: Any) -> Document:
    return {name: value for name, value in fields.items() if value}


def _markdown(title: str, rules: Rules) -> str:
    return "\n".join([f"## {title}", "", *(f"- **{name}.** {rule}" for name, rule in rules.items())])


def _data() -> Document:
    """The struct that is read, each field with what is known of it as it is written."""
    _, structs = msgspec.json.schema_components([FinishedDataV1])
    schema = structs[FinishedDataV1.__name__]
    return {
        **schema,
        "title": "The data",
        "description": "The same in both modes. Ids only, nothing personal.",
        "properties": {name: {**found, **FIELDS[name]} for name, found in schema["properties"].items()},
        "additionalProperties": True,
    }


def _binary(channel: Channel) -> Document:
    headers = {name: text.decode() for name, text in cloudevents.headers(EXAMPLE)}
    return {
        "name": FINISHED_V1,
        "title": "An appointment is over",
        "summary": "CloudEvents 1.0 in binary mode: the attributes are headers, the value is the data.",
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "required": [name for name in headers if name not in OPTIONAL],
            "properties": {name: {"type": "string", **HEADERS[name]} for name in headers},
            "additionalProperties": True,
        },
        "payload": {"$ref": "#/components/schemas/FinishedData"},
        "examples": [{"name": "hour", "summary": "An hour.", "headers": headers, "payload": _example()}],
        **_given(bindings=channel.message_bindings),
    }


def _structured(channel: Channel) -> Document:
    binary = _binary(channel)
    attributes = {
        name.removeprefix("ce_"): said
        for name, said in binary["headers"]["properties"].items()
        if name.startswith("ce_")
    }
    example = {
        name.removeprefix("ce_"): text
        for name, text in binary["examples"][0]["headers"].items()
        if name.startswith("ce_")
    }
    return {
        **binary,
        "name": f"{FINISHED_V1} (structured)",
        "summary": "CloudEvents 1.0 in structured mode: the value is the whole event.",
        "contentType": cloudevents.STRUCTURED,
        "headers": {
            "type": "object",
            "required": [CONTENT],
            "properties": {CONTENT: {"type": "string", "const": cloudevents.STRUCTURED}},
        },
        "payload": {
            "type": "object",
            "required": [*(name for name in attributes if f"ce_{name}" not in OPTIONAL), "data"],
            "properties": attributes | {"data": {"$ref": "#/components/schemas/FinishedData"}},
        },
        "examples": [
            {
                "name": "hour",
                "summary": "An hour.",
                "headers": {CONTENT: cloudevents.STRUCTURED},
                "payload": example | {"data": _example()},
            }
        ],
    }


def _example() -> Document:
    data: Document = msgspec.json.decode(EXAMPLE.data or b"")
    return data
