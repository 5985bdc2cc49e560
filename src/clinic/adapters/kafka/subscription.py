"""The way out of a Kafka topic, as a member of a consumer group.

librdkafka's client is synchronous: it has a thread of its own, and one wake-up of the event loop a batch.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from threading import Event, Thread
from time import monotonic
from typing import Final

from confluent_kafka import KafkaException

from clinic.adapters.kafka.cluster import KafkaConfig, make_topic
from clinic.adapters.kafka.member import Batch, Member
from clinic.domain.errors import ClinicError, Misconfigured, Unavailable
from clinic.domain.messaging.messages import Delivery
from clinic.domain.messaging.ports import Clock, Resource, Subscription, Telemetry

KEEP_ALIVE_INTERVAL: Final = 0.5
"""Seconds between two signs of life while a batch is held. The first one stops what the client fetches in
advance.
"""
POLL_INTERVAL: Final = 2.0
"""Seconds between two looks whether the broker is there, while nothing comes."""
CLOSE_TIMEOUT: Final = 7.0


class KafkaSubscription(Subscription, Resource):
    """A member of the group. Its thread hands a batch over, reads the next one ahead, and keeps the client
    alive meanwhile.
    """

    def __init__(self, kafka: KafkaConfig, clock: Clock, telemetry: Telemetry) -> None:
        self._kafka, self._clock, self._notices = kafka, clock, telemetry
        self._closing = Event()
        self._thread: Thread | None = None
        self._came: Batch | Exception | None = None
        self._woken = asyncio.Event()
        self._held: Batch | None = None

    async def open(self) -> None:
        """Raises `Unavailable` without a cluster, `Misconfigured` where the topic is missing and cannot be
        made.
        """
        await asyncio.to_thread(make_topic, self._kafka, self._notices)
        self._closing.clear()
        self._loop = asyncio.get_running_loop()
        self._thread = Thread(target=self._run, name="kafka-subscription", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Leaves the group; a broker that does not answer is not waited for."""
        self._closing.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, CLOSE_TIMEOUT)
            self._thread = None

    async def receive(self) -> Sequence[Delivery]:
        if self._thread is None:
            raise Unavailable("the connection to Kafka is closed")
        while self._held is None or self._held.is_dropped:
            await self._woken.wait()
            self._woken.clear()
            came, self._came = self._came, None
            if isinstance(came, Exception):
                raise came
            self._held = came
        return self._held.deliveries

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        if self._thread is None:
            raise Unavailable("the connection to Kafka is closed")
        held = self._held
        if held is None or held.is_dropped or not batch:
            return  # another member has it by now
        await held.acknowledge()
        self._held = None

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._consume()
            except KafkaException as error:
                self._hand_over(Unavailable(f"Kafka does not answer: {error.args[0].str()}"))
                self._closing.wait(1)
            except Exception as error:
                self._hand_over(error)
                if not isinstance(error, Misconfigured):
                    raise
                return

    def _consume(self) -> None:
        """Until the client is of no more use: then the next one begins where the group's offsets are."""
        member = Member(self._kafka, self._clock)
        looked = monotonic()
        try:
            while not self._closing.is_set():
                if held := member.next_batch(self._loop):
                    self._hand_over(held)
                    self._until_acknowledged(member, held)
                    looked = monotonic()
                elif monotonic() - looked > POLL_INTERVAL:
                    self._look(member)
                    looked = monotonic()
        finally:
            if member.held:
                member.held.drop()
            member.close()

    def _look(self, member: Member) -> None:
        # The client comes back by itself, and says nothing while it tries.
        try:
            member.look()
        except KafkaException as error:
            self._hand_over(Unavailable(f"Kafka does not answer: {error.args[0].str()}"))

    def _until_acknowledged(self, member: Member, held: Batch) -> None:
        member.prefetch(self._loop)
        while not self._closing.is_set():
            if not held.is_acknowledged_within(KEEP_ALIVE_INTERVAL):
                member.keep_alive()
                continue
            failure: ClinicError | None = Unavailable("Kafka does not say whether offsets are kept")
            try:
                failure = member.commit(held)
            finally:
                held.settle(failure)
            if failure is None:
                member.resume()
                return

    def _hand_over(self, came: Batch | Exception) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._arrived, came)

    def _arrived(self, came: Batch | Exception) -> None:
        # The latest counts: trouble that nobody has heard of is over when a batch comes.
        self._came = came
        self._woken.set()
