"""The way out of a Kafka topic, as a member of a consumer group."""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from threading import Event, Thread
from time import monotonic
from typing import Final

from confluent_kafka import KafkaException

from clinic.adapters.kafka.cluster import KafkaConfig, Topic
from clinic.adapters.kafka.member import Batch, Member
from clinic.adapters.threads import in_thread
from clinic.domain.errors import ClinicError, Misconfigured, NotNow, Unavailable
from clinic.domain.messaging.messages import Delivery
from clinic.domain.messaging.ports import Clock, Resource, Subscription, Telemetry

KEEP_ALIVE_INTERVAL: Final = 0.5
"""Seconds between two signs of life while a batch is held. The first one pauses fetching."""
POLL_INTERVAL: Final = 2.0
"""Seconds between two probes of the broker while nothing comes."""
RETRY_INTERVAL: Final = 1.0
STALLED_AFTER: Final = 60.0
"""Seconds after which a thread that shows no sign of life is stuck in the client: each call has a bound."""
CLOSE_TIMEOUT: Final = 7.0


class KafkaSubscription(Subscription, Resource):
    """A member of the group. Its thread hands batches over, prefetches and keeps the client alive."""

    def __init__(self, kafka: KafkaConfig, clock: Clock, telemetry: Telemetry) -> None:
        self._kafka, self._clock = kafka, clock
        self._telemetry = telemetry
        self._closing = Event()
        self._thread: Thread | None = None
        self._alive_at = 0.0
        self._came: Batch | ClinicError | tuple[()] | None = None
        self._has_failed = False
        self._failure: ClinicError | None = None
        self._woken = asyncio.Event()
        self._held: Batch | None = None

    async def open(self) -> None:
        """Raises `Unavailable` without a cluster, `Misconfigured` where the topic cannot be made."""
        topic = await in_thread(Topic, self._kafka, self._telemetry)
        topic_id = await in_thread(topic.make)
        self._closing.clear()
        self._loop = asyncio.get_running_loop()
        self._failure = None
        self._alive_at = monotonic()
        work = partial(self._run, topic, topic_id)
        self._thread = Thread(target=work, name="kafka-subscription", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Leaves the group; does not wait for a broker that does not answer."""
        self._closing.set()
        if self._thread is not None:
            await in_thread(self._thread.join, CLOSE_TIMEOUT)
            self._thread = None

    def check_alive(self) -> None:
        """Raises what ended the thread that receives; `Unavailable` where it hangs."""
        if self._failure:
            raise self._failure
        if self._thread is None:
            raise Unavailable("the connection to Kafka is closed")
        if not self._thread.is_alive():
            raise RuntimeError("the thread that receives from Kafka has ended")
        if (seconds := monotonic() - self._alive_at) > STALLED_AFTER:
            raise Unavailable(f"Kafka's client has not answered for {seconds:.0f} s")

    async def receive(self) -> Sequence[Delivery]:
        while self._held is None or self._held.is_dropped:
            if self._came is None:
                self.check_alive()
                await self._woken.wait()
            self._woken.clear()
            came, self._came = self._came, None
            if isinstance(came, ClinicError):
                raise came
            if isinstance(came, tuple):
                return came
            self._held = came
        return self._held.deliveries

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        if not batch:
            return
        self.check_alive()
        if (held := self._held) and not held.is_dropped and held.is_made_of(batch):  # else another has it
            await held.acknowledge()
            self._held = None

    def _run(self, topic: Topic, known: str) -> None:
        topic_id = known
        while self._continues():
            try:
                if (topic_id := topic_id or topic.make()) != known:
                    self._telemetry("topic was made anew", topic=self._kafka.topic)
                    known = topic_id
                self._consume(topic, topic_id)
            except KafkaException as error:
                self._hand_over(Unavailable(f"Kafka does not answer: {error.args[0].str()}"))
            except NotNow as error:
                self._hand_over(error)
            except Misconfigured as error:
                self._failure = error
                self._hand_over(error)
                return
            except:  # noqa: E722 — a bare KafkaError is no BaseException, and ends a thread all the same
                self._hand_over(Unavailable(f"Kafka's client failed: {sys.exc_info()[1]!r}"))
            topic_id = ""
            self._closing.wait(RETRY_INTERVAL)

    def _consume(self, topic: Topic, topic_id: str) -> None:
        """Until the client or the topic is gone: the next one begins where the group's offsets are."""
        member = Member(self._kafka, topic, topic_id, self._clock)
        probed = monotonic()
        try:
            while self._continues():
                if held := member.next_batch(self._loop):
                    self._hand_over(held)
                    self._until_acknowledged(member, held)
                    probed = monotonic()
                elif monotonic() - probed > POLL_INTERVAL:
                    self._probe(member)
                    probed = monotonic()
        finally:
            if member.held:
                member.held.drop()
            member.close()

    def _continues(self) -> bool:
        self._alive_at = monotonic()
        return not self._closing.is_set()

    def _probe(self, member: Member) -> None:
        # The client comes back by itself, and says nothing while it tries.
        try:
            member.probe()
        except KafkaException as error:
            self._hand_over(Unavailable(f"Kafka does not answer: {error.args[0].str()}"))
        else:
            if self._has_failed:
                self._hand_over(())

    def _until_acknowledged(self, member: Member, held: Batch) -> None:
        member.prefetch(self._loop)
        while self._continues():
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

    def _hand_over(self, came: Batch | ClinicError | tuple[()]) -> None:
        self._has_failed = isinstance(came, ClinicError)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._arrived, came)

    def _arrived(self, came: Batch | ClinicError | tuple[()]) -> None:
        # The latest counts: a failure that nobody has heard of is over when a batch comes.
        self._came = came
        self._woken.set()
