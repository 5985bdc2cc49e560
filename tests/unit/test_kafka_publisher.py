"""When Kafka's reports count as kept, as far as no broker can be made to report it at will."""

import pytest
from confluent_kafka import Message as Record

from clinic.adapters.kafka.publisher import Sending
from clinic.domain.errors import Unavailable


async def test_a_success_without_an_offset_is_no_proof_that_anything_was_kept() -> None:
    sending = Sending(2)

    sending.report(0, None, Record(topic="topic", partition=0, offset=7))
    sending.report(1, None, Record(topic="topic", partition=0))

    with pytest.raises(Unavailable, match="where events are kept"):
        await sending.outcome


async def test_reports_come_back_in_the_order_of_the_batch() -> None:
    sending = Sending(2)

    sending.report(1, None, Record(topic="topic", partition=0, offset=8))
    sending.report(0, None, Record(topic="topic", partition=0, offset=7))

    assert [record.offset() for record in await sending.outcome] == [7, 8]
