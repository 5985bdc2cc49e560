"""What a foreign producer may write to a Kafka topic, as far as no client of ours can write it."""

from typing import cast

import pytest
from confluent_kafka import Message as Record

from clinic.adapters.kafka.member import delivery
from clinic.domain import events
from clinic.domain.errors import Unreadable
from clinic.testing.builders import ONE_O_CLOCK


class NamedInNoText:
    """A record with a header whose name is not UTF-8: the client raises where it is asked for."""

    def topic(self) -> str:
        return "topic"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7

    def timestamp(self) -> tuple[int, int]:
        return 1, 0

    def key(self) -> bytes:
        return b"key"

    def value(self) -> bytes:
        return b"{}"

    def headers(self) -> None:
        raise SystemError("returned a result with an exception set")


def test_a_header_whose_name_is_no_text_makes_a_dead_letter_and_stops_nobody() -> None:
    found = delivery(cast("Record", NamedInNoText()), "its-id", ONE_O_CLOCK)

    assert (found.origin.position, found.key, found.headers, found.value) == (
        "topic/its-id/0/7",
        b"key",
        (),
        b"{}",
    )
    with pytest.raises(Unreadable, match="names no event type"):
        events.from_message(found.message)
