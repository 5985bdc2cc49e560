"""What every transport must do. Each test's name is a sentence of a port's docstring, or what follows from
one.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from support.builders import ONE_O_CLOCK, a_delivery, a_message, now

from clinic.domain.errors import Refused, Unavailable
from clinic.domain.messaging.messages import Delivery, Message
from clinic.domain.messaging.ports import Subscription
from contracts.subject import Contract, Ends
from contracts.transport_machine import TransportMachine

SOON = timedelta(seconds=5)
"""How far a server's clock may be from this machine's."""


class TransportContract(Contract):
    """A publisher, and subscriptions of groups."""

    largest: ClassVar[int] = 1024 * 1024
    """Bytes of data that a message can carry."""
    unpublishable: ClassVar[Message | None] = None
    """A message that is always refused, where there is any."""

    def opened(self, where: Path) -> AbstractAsyncContextManager[Ends]:
        """The subject on the data at that place; leaving ends its process."""
        raise NotImplementedError

    def unanswering(self, where: Path) -> AbstractAsyncContextManager[Ends]:
        """A subject whose server or file is gone. Not asked for where it `always_answers`."""
        raise NotImplementedError

    @pytest.fixture
    async def ends(self, where: Path) -> AsyncIterator[Ends]:
        async with self.opened(where) as ends:
            yield ends

    async def collected(self, subscription: Subscription, count: int) -> list[Delivery]:
        """Deliveries until so many messages have come, repeats among them."""
        found: list[Delivery] = []
        async with asyncio.timeout(self.patience):
            while len(positions(found)) < count:
                batch = await subscription.receive()
                found += batch
                await subscription.acknowledge(batch)
        return found

    def test_any_history_of_calls_goes_as_a_simple_model_says(self, where: Path) -> None:
        self.goes_as_its_model(lambda: TransportMachine(self, self.opened, where))

    async def test_publishing_answers_one_for_each_in_order(self, ends: Ends) -> None:
        batch = [a_message() for _ in range(5)]
        answers = await ends.publisher.publish(batch)
        assert [answer.message.id for answer in answers] == [message.id for message in batch]
        assert len({answer.position for answer in answers}) == 5
        assert all(now() - SOON < answer.at < now() + SOON for answer in answers)

    async def test_what_was_published_arrives_once_where_nothing_goes_wrong(self, ends: Ends) -> None:
        batches = [[a_message() for _ in range(number)] for number in (1, 5, 3)]
        async with ends.subscribe("group") as subscription:
            for batch in batches:
                await ends.publisher.publish(batch)
            found = await self.collected(subscription, 9)
        assert sorted(ids(found)) == sorted(message.id for batch in batches for message in batch)

    async def test_the_position_that_publishing_answers_is_the_one_that_arrives(self, ends: Ends) -> None:
        answers = await ends.publisher.publish([a_message() for _ in range(3)])
        async with ends.subscribe("group") as subscription:
            found = await self.collected(subscription, 3)
        assert {each.message.id: each.origin.position for each in found} == {
            answer.message.id: answer.position for answer in answers
        }

    async def test_a_delivery_says_when_it_was_published_and_received(self, ends: Ends) -> None:
        await ends.publisher.publish([a_message()])
        async with ends.subscribe("group") as subscription:
            (found,) = await self.collected(subscription, 1)
        assert now() - SOON < found.origin.published_at < now() + SOON
        assert now() - SOON < found.origin.received_at < now() + SOON
        assert found.origin.attempts == 1

    async def test_messages_of_one_key_arrive_in_order(self, ends: Ends) -> None:
        messages = [a_message(key=f"key {number % 3}") for number in range(30)]
        async with ends.subscribe("group") as subscription:
            for first in range(0, 30, 6):
                await ends.publisher.publish(messages[first : first + 6])
            found = await self.collected(subscription, 30)
        assert by_key([each.message for each in found]) == by_key(messages)

    async def test_a_waiting_subscription_gets_what_is_published_then(self, ends: Ends) -> None:
        message = a_message()
        async with ends.subscribe("group") as subscription:
            waiting = asyncio.create_task(self.collected(subscription, 1))
            await asyncio.sleep(0)
            await ends.publisher.publish([message])
            assert ids(await waiting) == [message.id]

    async def test_what_was_published_before_the_first_subscription_opens_is_received(
        self, ends: Ends
    ) -> None:
        messages = [a_message() for _ in range(3)]
        await ends.publisher.publish(messages)
        async with ends.subscribe("group") as subscription:
            assert sorted(ids(await self.collected(subscription, 3))) == sorted(
                message.id for message in messages
            )

    async def test_a_batch_that_was_not_acknowledged_comes_again(self, ends: Ends) -> None:
        await ends.publisher.publish([a_message() for _ in range(3)])
        async with ends.subscribe("group") as subscription:
            found = await self.soon(subscription.receive())
            again = await self.soon(subscription.receive())
        assert positions(found) <= positions(again)

    async def test_what_a_dead_member_did_not_acknowledge_comes_again_with_the_same_positions(
        self, ends: Ends
    ) -> None:
        await ends.publisher.publish([a_message() for _ in range(3)])
        async with ends.subscribe("group") as subscription:
            found = await self.soon(subscription.receive())
        async with ends.subscribe("group") as subscription:
            again = await self.collected(subscription, 3)
        assert positions(found) <= positions(again)

    async def test_what_was_acknowledged_never_comes_again(self, ends: Ends) -> None:
        first, second, third = [a_message(key="key") for _ in range(3)]
        async with ends.subscribe("group") as subscription:
            await ends.publisher.publish([first])
            await self.collected(subscription, 1)
            await ends.publisher.publish([second])
            assert ids(await self.collected(subscription, 1)) == [second.id]
        await ends.publisher.publish([third])
        async with ends.subscribe("group") as subscription:
            assert ids(await self.collected(subscription, 1)) == [third.id]

    async def test_a_second_group_gets_everything(self, ends: Ends) -> None:
        messages = [a_message() for _ in range(3)]
        await ends.publisher.publish(messages)
        for group in ("one", "other"):
            async with ends.subscribe(group) as subscription:
                assert sorted(ids(await self.collected(subscription, 3))) == sorted(
                    message.id for message in messages
                )

    async def test_cancelling_the_wait_loses_nothing(self, ends: Ends) -> None:
        message = a_message()
        async with ends.subscribe("group") as subscription:
            for _ in range(3):
                waiting = asyncio.create_task(subscription.receive())
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])
            waiting = asyncio.create_task(subscription.receive())
            await ends.publisher.publish([message])
            waiting.cancel()  # whether or not it was handed over just now
            await asyncio.wait([waiting])
            assert ids(await self.collected(subscription, 1)) == [message.id]

    @pytest.mark.parametrize(
        "odd",
        [
            {},
            {"time": ONE_O_CLOCK + timedelta(milliseconds=7)},
            {"time": None},
            {"data": None},
            {"data": b"\x00\xff no JSON"},
            {"subject": "Zoë 'the' \"patient\"", "source": "clinic/élan"},
            {"key": "", "subject": "", "type": ""},
        ],
        ids=["usual", "milliseconds", "no time", "no data", "binary", "letters", "missing"],
    )
    async def test_every_attribute_of_a_message_arrives_as_it_was(
        self, ends: Ends, odd: dict[str, object]
    ) -> None:
        message = a_message(**odd)
        await ends.publisher.publish([message])
        async with ends.subscribe("group") as subscription:
            (found,) = await self.collected(subscription, 1)
        assert found.message == message
        assert (found.value or None, found.key or None) == (
            message.data or None,
            message.key.encode() or None,
        )

    async def test_a_large_message_arrives_whole(self, ends: Ends) -> None:
        message = a_message(data=(bytes(range(256)) * (self.largest // 256 + 1))[: self.largest])
        await ends.publisher.publish([a_message(), message])
        async with ends.subscribe("group") as subscription:
            found = await self.collected(subscription, 2)
        assert message in [each.message for each in found]

    async def test_a_batch_is_refused_where_one_of_its_messages_can_never_be_published(
        self, ends: Ends
    ) -> None:
        self.only_if(self.unpublishable is not None, "everything can be published")
        assert self.unpublishable
        with pytest.raises(Refused):
            await self.soon(ends.publisher.publish([a_message(), self.unpublishable]))
        await self.soon(ends.publisher.publish([a_message()]))

    async def test_every_call_raises_unavailable_when_the_other_side_does_not_answer(
        self, where: Path
    ) -> None:
        self.only_if(not self.always_answers, "it always answers")
        async with self.unanswering(where) as ends, ends.subscribe("group") as subscription:
            for call in (
                ends.publisher.publish([a_message()]),
                subscription.receive(),
                subscription.acknowledge([a_delivery(a_message())]),
            ):
                with pytest.raises(Unavailable):
                    await self.soon(call)

    async def test_more_than_a_batch_arrives_in_several(self, ends: Ends) -> None:
        messages = [a_message(key="key") for _ in range(1200)]
        await ends.publisher.publish(messages)
        async with ends.subscribe("group") as subscription:
            found = await self.collected(subscription, 1200)
        assert ids(found) == [message.id for message in messages]

    async def test_what_was_published_outlives_the_process(self, where: Path) -> None:
        async with self.opened(where) as ends, ends.subscribe("group") as subscription:
            await ends.publisher.publish([a_message(key="key")])
            await self.collected(subscription, 1)
            left = a_message(key="key")
            await ends.publisher.publish([left])
        async with self.opened(where) as ends, ends.subscribe("group") as subscription:
            sentinel = a_message(key="key")
            await ends.publisher.publish([sentinel])
            expected = [left.id, sentinel.id] if self.survives else [sentinel.id]
            assert ids(await self.collected(subscription, len(expected))) == expected


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [each.message.id for each in deliveries]


def positions(deliveries: Sequence[Delivery]) -> set[str]:
    return {each.origin.position for each in deliveries}


def by_key(messages: Sequence[Message]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for message in messages:
        found[message.key].append(message.id)
    return found
