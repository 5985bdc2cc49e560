"""Any history of a transport, beside a model: what was published under each key, and how much of it each
group acknowledged.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import initialize

from clinic.adapters import cloudevents
from clinic.domain.messaging.messages import Delivery, Message
from clinic.domain.messaging.ports import Subscription
from clinic.testing.builders import a_message
from clinic.testing.machines import Machine, Openable, given_up, step
from clinic.testing.subject import Contract, Ends

KEYS = ["one key", "another", "Schlüssel"]
GROUPS = ["group", "others"]
MAX_HOLD = 0.1
"""Seconds."""
groups = st.sampled_from(GROUPS)
batches = st.lists(st.sampled_from(KEYS), min_size=1, max_size=5)


class TransportMachine(Machine):
    """Its model is `log` and `acknowledged`. Both groups are there from the beginning."""

    def __init__(
        self, suite: Contract, opened: Callable[[Path], AbstractAsyncContextManager[Ends]], where: Path
    ) -> None:
        super().__init__(suite, where)
        self.positions: set[str] = set()
        """Of every log there was."""
        self.transport = Openable(partial(opened, self.where))
        self.subscriptions = {group: Openable(partial(self._subscribed, group)) for group in GROUPS}
        self._new()

    def _new(self) -> None:
        self.latest: Sequence[Message] = ()
        self.stale: dict[str, Sequence[Delivery]] = dict.fromkeys(GROUPS, ())
        self.log: dict[str, list[tuple[str, Message]]] = defaultdict(list)
        self.acknowledged: dict[str, Counter[str]] = {group: Counter() for group in GROUPS}
        self.received: dict[str, Sequence[Delivery]] = dict.fromkeys(GROUPS, ())

    def _subscribed(self, group: str) -> AbstractAsyncContextManager[Subscription]:
        return self.transport().subscribe(group)

    @initialize()
    def begin(self) -> None:
        self.start()

    async def open(self) -> None:
        await self.transport.open()
        await asyncio.gather(*(each.open() for each in self.subscriptions.values()))

    async def close(self) -> None:
        await asyncio.gather(*(each.close() for each in self.subscriptions.values()))
        await self.transport.close()

    @step(keys=batches)
    async def publish(self, keys: Sequence[str]) -> None:
        await self._publish(keys)

    async def _publish(self, keys: Sequence[str]) -> None:
        await self._publish_these([a_message(key=key) for key in keys])

    @step()
    async def publish_again(self) -> None:
        if self.latest:
            await self._publish_these(self.latest)

    async def _publish_these(self, batch: Sequence[Message]) -> None:
        self.latest = batch
        answers = await self.transport().publisher.publish(batch)
        assert [each.message for each in answers] == [*batch]
        new = {each.position for each in answers}
        assert len(new) == len(batch), "two messages have one position"
        assert not new & self.positions, "a position is used again"
        self.positions |= new
        for each in answers:
            self.log[each.message.key].append((each.position, each.message))

    @step(group=groups, keys=batches)
    async def receive(self, group: str, keys: Sequence[str]) -> None:
        """Where nothing is left for the group, it waits until something is published."""
        waiting = asyncio.create_task(self.subscriptions[group]().receive())
        await asyncio.sleep(0)
        if not self._left(group):
            await self._publish(keys)
        self._take(group, await waiting)

    def _take(self, group: str, batch: Sequence[Delivery]) -> None:
        assert batch
        for key in KEYS:
            came = [(each.origin.position, each.message) for each in batch if each.message.key == key]
            begin = self.acknowledged[group][key]
            assert came == self.log[key][begin : begin + len(came)]
        again = {each.origin.position for each in batch}
        assert {each.origin.position for each in self.received[group]} <= again, (
            "what was not acknowledged does not come again"
        )
        for each in batch:
            read = cloudevents.message(each.key, each.headers, each.value)
            assert read == each.message, "key, headers and value do not read back as the message"
        self.received[group] = batch

    def _left(self, group: str) -> int:
        return sum(len(messages) for messages in self.log.values()) - self.acknowledged[group].total()

    @step(group=groups)
    async def give_up_receiving(self, group: str) -> None:
        if batch := await given_up(self.subscriptions[group]().receive()):
            self._take(group, batch)

    @step(group=groups)
    async def acknowledge(self, group: str) -> None:
        await self._acknowledge(group)

    async def _acknowledge(self, group: str) -> None:
        batch, self.received[group] = self.received[group], ()
        if batch:
            await self.subscriptions[group]().acknowledge(batch)
            self.acknowledged[group].update(each.message.key for each in batch)
            self.stale[group] = batch

    @step(group=groups)
    async def acknowledge_again(self, group: str) -> None:
        await self.subscriptions[group]().acknowledge(self.stale[group])

    @step(group=groups)
    async def hold(self, group: str) -> None:
        """For longer than the other side's patience, unless that would take minutes."""
        if self.received[group] and self.suite.longest_hold <= MAX_HOLD:
            await asyncio.sleep(self.suite.longest_hold)

    @step(lost=st.sampled_from([*GROUPS, "everything"]))
    async def lose(self, lost: str) -> None:
        """A group's member, or every process there is."""
        if lost in GROUPS:
            self.received[lost] = ()
            await self.subscriptions[lost].reopen()
            return
        self.received = dict.fromkeys(GROUPS, ())
        await self.close()
        await self.open()
        if not self.suite.survives:
            self._new()

    async def ends(self) -> None:
        """Each group was handed everything, in order per key, and is handed nothing else."""
        await self._publish(KEYS)
        for group in GROUPS:
            while self._left(group):
                self._take(group, await self.subscriptions[group]().receive())
                await self._acknowledge(group)
