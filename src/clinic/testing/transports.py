"""What every transport must do. Each test's name is a sentence of a port's docstring, or follows from one."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar

import pytest
import pytest_asyncio
from msgspec import Struct
from msgspec.structs import replace

from clinic.adapters import cloudevents
from clinic.domain.errors import Misconfigured, Refused, Unavailable
from clinic.domain.messaging.messages import Delivery, Message
from clinic.domain.messaging.ports import Subscription
from clinic.entrypoints.technologies.factories import FactoryContext, Transport
from clinic.testing.builders import (
    EXTENSIONS,
    MANY_EXTENSIONS,
    ONE_O_CLOCK,
    RecordedTelemetry,
    a_delivery,
    a_message,
    now,
    opened,
)
from clinic.testing.subject import Contract, Ends
from clinic.testing.transport_machine import TransportMachine

SOON = timedelta(seconds=5)
"""How far a server's clock may be from this machine's."""


class TransportContract(Contract):
    """A publisher, and subscriptions of groups. A subclass says which `transport`, and on what `settings`."""

    transport: ClassVar[Transport[Any]]
    """What its entry point names. It declares whether a group has `one_member`, and whether it `survives`."""
    lease: ClassVar[float] = 20.0
    """Seconds that its factories are told a relay waits for a publication."""

    largest: ClassVar[int] = 1024 * 1024
    """Bytes of data that a message can carry."""
    unpublishable: ClassVar[Message | None] = None
    """A message that is always refused, where there is any."""

    one_member: ClassVar[bool] = False
    """A second member of a group is refused."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "transport" in vars(cls):
            cls.one_member, cls.survives = cls.transport.one_member, not cls.transport.in_process

    def settings(self, where: Path) -> Struct:  # noqa: ARG002 — a transport in files needs none
        """Those of a log of its own at that place: a name is made of it, where it is on a server."""
        settings: Struct = self.transport.settings()
        return settings

    def nowhere(self, where: Path) -> Struct:
        """Settings under which nobody answers; those of a file, which is not there before it is opened."""
        return self.settings(where)

    async def remove(self, where: Path) -> None:
        """Remove the log at that place, so that the next opening makes it anew. In memory, opening does."""

    @asynccontextmanager
    async def opened(self, where: Path) -> AsyncIterator[Ends]:
        """The subject on the data at that place; leaving ends its process."""
        shared: dict[str, Any] = {}
        end = self.transport.publisher(self.context(where, "group", shared))
        async with opened(end.resource):
            yield Ends(end.publisher, partial(self._subscribed, where, shared))

    @asynccontextmanager
    async def _subscribed(
        self, where: Path, shared: dict[str, Any], group: str
    ) -> AsyncIterator[Subscription]:
        end = self.transport.subscription(self.context(where, group, shared))
        async with opened(end.resource):
            yield end.subscription

    @asynccontextmanager
    async def unanswering(self, where: Path) -> AsyncIterator[Ends]:
        """A subject whose server or file is gone. Not asked for where it `always_answers`."""
        context = replace(self.context(where, "group", {}), settings=self.nowhere(where))

        @asynccontextmanager
        async def subscribe(_: str) -> AsyncIterator[Subscription]:
            yield self.transport.subscription(context).subscription

        yield Ends(self.transport.publisher(context).publisher, subscribe)

    @asynccontextmanager
    async def interrupted(self, where: Path) -> AsyncIterator[None]:  # noqa: ARG002 — for those who can
        """Inside, the log does not answer the open subscription of "group"; afterwards it does again."""
        self.only_if(False, "its log cannot be taken away for a while")
        yield

    def context(self, where: Path, group: str, shared: dict[str, Any]) -> FactoryContext[Any]:
        """What the factories are handed for a process that works at that place."""
        return FactoryContext(
            settings=self.settings(where),
            clock=now,
            sleep=asyncio.sleep,
            monotonic=monotonic,
            telemetry=RecordedTelemetry(),
            lease=self.lease,
            group=group,
            data_dir=where,
            shared=shared,
        )

    @pytest_asyncio.fixture
    async def ends(self, where: Path) -> AsyncIterator[Ends]:
        async with self.opened(where) as ends:
            yield ends

    async def collected(self, subscription: Subscription, expected: Sequence[Message]) -> list[Delivery]:
        """Deliveries until as many messages have come, repeats among them."""
        found: list[Delivery] = []
        try:
            async with asyncio.timeout(self.patience):
                while len(positions(found)) < len(expected):
                    batch = await subscription.receive()
                    found += batch
                    await subscription.acknowledge(batch)
        except TimeoutError:
            raise AssertionError(incomplete(found, expected, self.patience)) from None
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
            found = await self.collected(subscription, [each for batch in batches for each in batch])
        assert sorted(ids(found)) == sorted(message.id for batch in batches for message in batch)

    async def test_the_position_that_publishing_answers_is_the_one_that_arrives(self, ends: Ends) -> None:
        answers = await ends.publisher.publish(messages := [a_message() for _ in range(3)])
        async with ends.subscribe("group") as subscription:
            found = await self.collected(subscription, messages)
        assert {each.message.id: each.origin.position for each in found} == {
            answer.message.id: answer.position for answer in answers
        }

    async def test_a_delivery_says_when_it_was_published_and_received(self, ends: Ends) -> None:
        await ends.publisher.publish([message := a_message()])
        async with ends.subscribe("group") as subscription:
            (found,) = await self.collected(subscription, [message])
        assert now() - SOON < found.origin.published_at < now() + SOON
        assert now() - SOON < found.origin.received_at < now() + SOON
        assert found.origin.attempts == 1

    async def test_messages_of_one_key_arrive_in_order(self, ends: Ends) -> None:
        messages = [a_message(key=f"key {number % 3}") for number in range(30)]
        async with ends.subscribe("group") as subscription:
            for first in range(0, 30, 6):
                await ends.publisher.publish(messages[first : first + 6])
            found = await self.collected(subscription, messages)
        assert_in_order(found, messages)

    async def test_a_waiting_subscription_gets_what_is_published_then(self, ends: Ends) -> None:
        message = a_message()
        async with ends.subscribe("group") as subscription:
            waiting = asyncio.create_task(self.collected(subscription, [message]))
            await asyncio.sleep(0)
            await ends.publisher.publish([message])
            assert ids(await waiting) == [message.id]

    async def test_what_was_published_before_the_first_subscription_opens_is_received(
        self, ends: Ends
    ) -> None:
        messages = [a_message() for _ in range(3)]
        await ends.publisher.publish(messages)
        async with ends.subscribe("group") as subscription:
            assert sorted(ids(await self.collected(subscription, messages))) == sorted(
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
        await ends.publisher.publish(messages := [a_message() for _ in range(3)])
        async with ends.subscribe("group") as subscription:
            found = await self.soon(subscription.receive())
        async with ends.subscribe("group") as subscription:
            again = await self.collected(subscription, messages)
        assert positions(found) <= positions(again)

    async def test_what_was_acknowledged_never_comes_again(self, ends: Ends) -> None:
        first, second, third = [a_message(key="key") for _ in range(3)]
        async with ends.subscribe("group") as subscription:
            await ends.publisher.publish([first])
            await self.collected(subscription, [first])
            await ends.publisher.publish([second])
            assert ids(await self.collected(subscription, [second])) == [second.id]
        await ends.publisher.publish([third])
        async with ends.subscribe("group") as subscription:
            assert ids(await self.collected(subscription, [third])) == [third.id]

    async def test_a_second_group_gets_everything(self, ends: Ends) -> None:
        messages = [a_message() for _ in range(3)]
        await ends.publisher.publish(messages)
        for group in ("one", "other"):
            async with ends.subscribe(group) as subscription:
                assert sorted(ids(await self.collected(subscription, messages))) == sorted(
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
            assert ids(await self.collected(subscription, [message])) == [message.id]

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
            (found,) = await self.collected(subscription, [message])
        assert found.message == message
        assert_reads_back(found)
        assert (found.value or None, found.key or None) == (
            message.data or None,
            message.key.encode() or None,
        )

    async def test_every_extension_of_a_message_arrives_as_it_was(self, ends: Ends) -> None:
        messages = [a_message(extensions=each, key="key") for each in ((), EXTENSIONS, MANY_EXTENSIONS)]
        await ends.publisher.publish(messages)
        async with ends.subscribe("group") as subscription:
            found = await self.collected(subscription, messages)
        assert [each.message for each in found] == messages

    async def test_a_large_message_arrives_whole(self, ends: Ends) -> None:
        message = a_message(data=(bytes(range(256)) * (self.largest // 256 + 1))[: self.largest])
        await ends.publisher.publish(both := [a_message(), message])
        async with ends.subscribe("group") as subscription:
            found = await self.collected(subscription, both)
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

    async def test_after_a_failure_an_empty_batch_says_that_the_log_answers_again(self, where: Path) -> None:
        async with self.opened(where) as ends, ends.subscribe("group") as subscription:
            await ends.publisher.publish([message := a_message()])
            await self.collected(subscription, [message])
            async with self.interrupted(where):
                with pytest.raises(Unavailable):
                    await self.soon(subscription.receive())
            assert list(await self.soon(answered(subscription))) == []

    async def test_more_than_a_batch_arrives_in_several(self, ends: Ends) -> None:
        messages = [a_message(key="key") for _ in range(1200)]
        await ends.publisher.publish(messages)
        async with ends.subscribe("group") as subscription:
            found = await self.collected(subscription, messages)
        assert_in_order(found, messages)

    async def test_what_was_published_outlives_the_process(self, where: Path) -> None:
        first, left, sentinel = [a_message(key="key") for _ in range(3)]
        async with self.opened(where) as ends, ends.subscribe("group") as subscription:
            await ends.publisher.publish([first])
            await self.collected(subscription, [first])
            await ends.publisher.publish([left])
        async with self.opened(where) as ends, ends.subscribe("group") as subscription:
            await ends.publisher.publish([sentinel])
            expected = [left, sentinel] if self.survives else [sentinel]
            assert_in_order(await self.collected(subscription, expected), expected)

    async def test_a_message_that_is_published_again_arrives_again(self, ends: Ends) -> None:
        message = a_message()
        async with ends.subscribe("group") as subscription:
            await ends.publisher.publish([message])
            await self.collected(subscription, [message])
            await ends.publisher.publish([message])
            await ends.publisher.publish([message])
            found = await self.collected(subscription, [message, message])
        assert ids(found) == [message.id, message.id]

    async def test_key_headers_and_value_read_back_as_the_message(self, ends: Ends) -> None:
        message = a_message(time=ONE_O_CLOCK, source="clinic/élan")
        await ends.publisher.publish([message])
        async with ends.subscribe("group") as subscription:
            (found,) = await self.collected(subscription, [message])
        assert_reads_back(found)

    async def test_acknowledging_what_is_no_longer_held_does_nothing(self, ends: Ends) -> None:
        first, second = a_message(key="key"), a_message(key="key")
        async with ends.subscribe("group") as subscription:
            await ends.publisher.publish([first])
            earlier = await self.soon(subscription.receive())
            await self.soon(subscription.acknowledge(earlier))
            await self.soon(subscription.acknowledge(earlier))
            await ends.publisher.publish([second])
            await self.soon(subscription.receive())
            await self.soon(subscription.acknowledge(earlier))
        async with ends.subscribe("group") as subscription:
            await self.soon(subscription.acknowledge(earlier))
            assert ids(await self.collected(subscription, [second])) == [second.id]

    async def test_nothing_is_published_or_acknowledged_at_once(self, ends: Ends) -> None:
        message = a_message()
        assert list(await self.soon(ends.publisher.publish([]))) == []
        async with ends.subscribe("group") as subscription:
            await self.soon(subscription.acknowledge([]))
            await ends.publisher.publish([message])
            await self.soon(subscription.receive())
            await self.soon(subscription.acknowledge([]))
        async with ends.subscribe("group") as subscription:
            assert ids(await self.collected(subscription, [message])) == [message.id]

    async def test_a_batch_stays_held_however_long_the_work_on_it_takes(self, ends: Ends) -> None:
        first, second = a_message(key="key"), a_message(key="key")
        async with ends.subscribe("group") as subscription:
            await ends.publisher.publish([first])
            held = await self.soon(subscription.receive())
            await asyncio.sleep(self.longest_hold)
            await self.soon(subscription.acknowledge(held))
            await ends.publisher.publish([second])
            assert ids(await self.collected(subscription, [second])) == [second.id]

    async def test_a_position_names_its_log_and_a_group_begins_anew_in_a_new_one(self, where: Path) -> None:
        positions_of: list[set[str]] = []
        for _ in range(2):
            messages = [a_message(key="key") for _ in range(3)]
            async with self.opened(where) as ends, ends.subscribe("group") as subscription:
                answers = await ends.publisher.publish(messages)
                found = await self.collected(subscription, messages)
                assert_in_order(found, messages)
                positions_of.append(positions(found) | {each.position for each in answers})
            await self.remove(where)
        assert not positions_of[0] & positions_of[1]

    async def test_while_a_message_is_held_no_other_member_gets_a_later_one_of_its_key(
        self, ends: Ends
    ) -> None:
        self.only_if(not self.one_member, "one member a group")
        messages = [a_message(key="key") for _ in range(6)]
        async with ends.subscribe("group") as one:
            await ends.publisher.publish(messages)
            held = await self.soon(one.receive())
            async with ends.subscribe("group") as other:
                if passed_on := await given_up(other.receive(), self.longest_hold):
                    assert_in_order(passed_on, messages[: len(passed_on)])
                    await other.acknowledge(passed_on)
                await self.soon(one.acknowledge(held))

    async def test_a_second_member_is_refused_where_a_group_has_one(self, ends: Ends) -> None:
        self.only_if(self.one_member, "several members a group")
        async with ends.subscribe("group"):
            with pytest.raises(Misconfigured):
                async with ends.subscribe("group"):
                    pass


async def given_up(receiving: Coroutine[Any, Any, Sequence[Delivery]], seconds: float) -> Sequence[Delivery]:
    try:
        return await asyncio.wait_for(receiving, seconds)
    except TimeoutError:
        return ()


async def answered(subscription: Subscription) -> Sequence[Delivery]:
    """What is received once its failures are over."""
    while True:
        try:
            return await subscription.receive()
        except Unavailable:
            await asyncio.sleep(0)


def incomplete(found: Sequence[Delivery], expected: Sequence[Message], seconds: float) -> str:
    come = {each.message.id for each in found}
    missing = " ".join(f"#{number}" for number, each in enumerate(expected) if each.id not in come)
    arrived = f"{len(positions(found))} of {len(expected)} arrived within {seconds:g} s"
    return f"{arrived}; missing {missing or 'repeats'}"


def assert_in_order(found: Sequence[Delivery], expected: Sequence[Message]) -> None:
    """Of each key; messages are called by their number in what was expected."""
    number = {each.id: f"#{index}" for index, each in enumerate(expected)}
    arrived = by_key([each.message for each in found])
    for key, wanted in by_key(expected).items():
        came = " ".join(number.get(each, "another") for each in arrived.get(key, []))
        order = " ".join(number[each] for each in wanted)
        assert came == order, f"{came}, expected {order}"


def assert_reads_back(delivery: Delivery) -> None:
    read = cloudevents.message(delivery.key, delivery.headers, delivery.value)
    assert read == delivery.message, "key, headers and value do not read back as the message"


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [each.message.id for each in deliveries]


def positions(deliveries: Sequence[Delivery]) -> set[str]:
    return {each.origin.position for each in deliveries}


def by_key(messages: Sequence[Message]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for message in messages:
        found[message.key].append(message.id)
    return found
