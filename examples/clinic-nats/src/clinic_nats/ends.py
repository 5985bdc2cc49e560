"""Both ends of a JetStream stream, which keeps everything. A stream that is made anew is another log."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any
from uuid import uuid4

from msgspec import Meta, Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error, NoRespondersError
from nats.js import api
from nats.js.errors import NotFoundError

from clinic import plugins
from clinic.plugins import Delivery, Message, Misconfigured, PublishResult, Refused, Unavailable

BATCH_SIZE, ROOM_FOR_HEADERS = 500, 200 * 1024
TIMEOUT, HOLD = 2, 7 * 24 * 3600
"""Seconds for an answer, and for which a batch stays held."""
ONCE: dict[str, Any] = {"allow_reconnect": False, "max_reconnect_attempts": 1, "reconnect_time_wait": 0}
SOON: dict[str, Any] = {"connect_timeout": TIMEOUT, "drain_timeout": 1}
Name = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]+$", description="Made where it is missing.")]


class NatsSettings(Struct, frozen=True, kw_only=True):
    """Read from CLINIC_NATS_…"""

    url: Annotated[str, plugins.Secret] = "nats://127.0.0.1:4222"
    stream: Name = "clinic"


class Connection(plugins.Resource):
    """After a failure it is closed, and the next call opens another one."""

    def __init__(self, context: plugins.FactoryContext[NatsSettings]) -> None:
        self._its, self._stream = context, context.settings.stream
        self._subject = f"{self._stream}.finished"
        self._client: Client | None = None

    async def open(self) -> None:
        async with self._working():
            pass

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):  # where it is broken, there is nothing to end in order
                await client.drain()
            await client.close()

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[Client]:
        """Connected, and at the end still with the same log. The client's errors become `Unavailable`."""
        try:
            if self._client is None:
                self._client = Client()
                await self._connect(self._client)
            yield self._client
            log = await self._ask_log()
        except BaseException as error:
            await self.close()
            if isinstance(error, (Error, OSError, TimeoutError)):
                raise Unavailable(f"NATS does not answer: {error or type(error).__name__}") from error
            raise
        if log != self._log:
            await self.close()
            raise Unavailable(f"the stream {self._stream} was made anew")

    async def _connect(self, client: Client) -> None:
        await client.connect(self._its.settings.url, _answer, no_echo=True, **SOON, **ONCE)
        self._jetstream = client.jetstream(timeout=TIMEOUT)
        self._log = await self._ask_log()

    async def _ask_log(self) -> str:
        """The stream, and when it was made; made now where it is missing."""
        try:
            info = await self._jetstream.stream_info(self._stream)
        except NotFoundError:
            info = await self._jetstream.add_stream(name=self._stream, subjects=[f"{self._stream}.>"])
        return f"{self._stream}@{info.created}"


class NatsPublisher(Connection, plugins.Publisher):
    """Sends a batch at once: the server keeps the order of a connection."""

    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        async with self._working() as client, asyncio.timeout(self._its.lease):
            most = client.max_payload - ROOM_FOR_HEADERS
            if any(len(message.data or b"") > most for message in batch):
                raise Refused(f"NATS carries at most {most} bytes in a message")
            kept = await asyncio.gather(*map(self._send, batch))
        positions, now = [f"{self._log}/{each.seq}" for each in kept], self._its.clock()
        return [PublishResult(*each, now) for each in zip(batch, positions, strict=True)]

    async def _send(self, message: Message) -> api.PubAck:
        headers = plugins.text_headers(message)
        return await self._jetstream.publish(self._subject, message.data or b"", headers=headers)


class NatsSubscription(Connection, plugins.PulledSubscription):
    """The one member of a group: a durable pull consumer, whose acknowledgements are the group's offset.

    What a dead member was handed, a server hands over again late and behind newer messages, and one before
    2.12 winds no consumer back. So each connection makes a consumer behind the offset, and removes the last.
    """

    def __init__(self, context: plugins.FactoryContext[NatsSettings]) -> None:
        super().__init__(context)
        self._group = context.group.replace(".", "=")
        self._came: list[Msg] = []

    async def close(self) -> None:
        self.drop()
        await super().close()

    async def _connect(self, client: Client) -> None:
        await super()._connect(client)
        await self._be_alone(client, f"clinic-members.{self._stream}.{self._group}")
        consumers = await self._jetstream.consumers_info(self._stream)
        known = [each for each in consumers if each.name.startswith(f"{self._group}#")]
        starts = [each.config.opt_start_seq or 1 for each in known]  # a floor is 0 before it is acknowledged
        floors = [each.ack_floor.stream_seq + 1 for each in known if each.ack_floor]
        config = api.ConsumerConfig(
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=max([1, *starts, *floors]),
            ack_policy=api.AckPolicy.ALL,
            ack_wait=HOLD,
        )
        name = f"{self._group}#{uuid4().hex}"
        self._consumer = await self._jetstream.pull_subscribe(self._subject, name, self._stream, config)
        self._count = 0
        for each in known:
            await self._jetstream.delete_consumer(self._stream, each.name)

    async def _be_alone(self, client: Client, subject: str) -> None:
        """No connection hears its own question: whoever answers is another member."""
        await client.subscribe(subject, cb=_answer)
        with suppress(NoRespondersError):
            await client.request(subject, timeout=TIMEOUT)
            raise Misconfigured(f"the group {self._group} has a member: with NATS, it has no other")

    async def fetch(self, *, wait: bool) -> Sequence[Delivery]:
        self._came = []
        async with self._working():
            while not await self._next() and wait:
                pass
        return [self._delivery(each) for each in self._came]

    async def _next(self) -> Sequence[Msg]:
        with suppress(TimeoutError):
            self._came = await self._consumer.fetch(BATCH_SIZE, TIMEOUT)
        if self._came:  # the client may also answer with nothing
            sent = self._came[-1].metadata.sequence.consumer
        else:
            delivered = (await self._consumer.consumer_info()).delivered
            sent = delivered.consumer_seq if delivered else 0
        self._count += len(self._came)
        if self._count != sent:
            raise Unavailable("NATS has sent messages that did not arrive")
        return self._came

    async def confirm(self, held: Sequence[Delivery]) -> None:
        async with self._working():
            if held:
                await self._came[-1].ack_sync(TIMEOUT)  # and all before it

    def _delivery(self, came: Msg) -> Delivery:
        position = f"{self._log}/{came.metadata.sequence.stream}"
        at = plugins.cloudevents.time(int(came.metadata.timestamp.timestamp() * 1000))
        origin = plugins.Origin(position=position, published_at=at, received_at=self._its.clock())
        return plugins.text_delivery(came.headers or {}, came.data, origin)


async def _answer(came: Msg | Exception) -> None:
    """A question, or an error: the call that fails says it, too."""
    if isinstance(came, Msg):
        await came.respond(b"")
