"""A CloudEvents SDK that shares no code with ours reads what we write, and writes what we read."""

import json
from collections.abc import Callable

import pytest
from cloudevents.core.bindings.kafka import (
    KafkaMessage,
    from_kafka_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.v1.event import CloudEvent
from msgspec.structs import replace

from clinic.adapters import cloudevents
from clinic.domain.events import FINISHED_V1, SOURCE, from_message, to_message
from clinic.domain.messaging.messages import Message
from clinic.testing.builders import TWO_O_CLOCK, a_message, an_event

RECORDED = ("recordedtime", "2020-12-01T14:00:00.007Z")

both_modes = pytest.mark.parametrize("write", [to_binary_event, to_structured_event])


def as_written(message: Message) -> KafkaMessage:
    """Our record, in the SDK's type."""
    headers = dict(cloudevents.headers(message))
    assert len(headers) == len(cloudevents.headers(message))
    return KafkaMessage(headers, message.key.encode(), message.data or b"")


def as_read(record: KafkaMessage) -> Message:
    """The SDK's record, as ours reads it."""
    key = record.key.encode() if isinstance(record.key, str) else record.key
    return cloudevents.message(key, list(record.headers.items()), record.value)


def test_the_sdk_reads_what_we_write() -> None:
    message = a_message(extensions=(RECORDED,))
    read = from_kafka_event(as_written(message))
    assert isinstance(read, CloudEvent)
    assert (read.get_specversion(), read.get_id(), read.get_source()) == ("1.0", message.id, SOURCE)
    assert (read.get_type(), read.get_subject()) == (FINISHED_V1, message.subject)
    assert (read.get_time(), read.get_datacontenttype()) == (TWO_O_CLOCK, "application/json")
    assert read.get_data() == json.loads(message.data or b"")
    assert read.get_extension("recordedtime") == RECORDED[1]
    assert read.get_extension("partitionkey") == message.key


@both_modes
def test_what_the_sdk_passes_on_is_still_our_message(write: Callable[..., KafkaMessage]) -> None:
    message = a_message(extensions=(RECORDED,))
    found = as_read(write(from_kafka_event(as_written(message))))
    assert from_message(found) == from_message(message)
    extensions = (RECORDED, ("partitionkey", message.key))
    assert replace(found, data=None) == replace(message, data=None, extensions=extensions)


@both_modes
def test_an_event_that_the_sdk_makes_is_read(write: Callable[..., KafkaMessage]) -> None:
    event = an_event()
    attributes = {
        "id": str(event.id),
        "source": SOURCE,
        "type": FINISHED_V1,
        "subject": str(event.appointment_id),
        "time": TWO_O_CLOCK,
        "datacontenttype": "application/json",
        "sampledrate": 7,
    }
    data = json.loads(to_message(event).data or b"")
    found = as_read(write(CloudEvent(attributes, data | {"price": 200, "room": "12"})))
    assert from_message(found) == event
    assert (found.id, found.time) == (str(event.id), TWO_O_CLOCK)
    assert found.extensions == (("sampledrate", "7"),)
