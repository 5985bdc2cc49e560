"""Which events a relay holds, and until when."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

import pytest

from clinic.adapters.leases import Leases
from clinic.domain.messaging.messages import ClaimedMessage, Message
from clinic.testing.builders import TWO_O_CLOCK, a_message


class Outbox:
    """So many unpublished events, and a clock to move."""

    def __init__(self, count: int) -> None:
        self.messages = [a_message() for _ in range(count)]
        self.time = 1000.0
        self.asked = asyncio.Event()

    def leases(self, seconds: float) -> Leases:
        return Leases(seconds, lambda: self.time)

    async def unpublished(self, limit: int) -> Sequence[tuple[datetime, Message]]:
        self.asked.set()
        return [(TWO_O_CLOCK, message) for message in self.messages[:limit]]


async def test_the_oldest_are_handed_over_first_and_held_until_their_lease_is_over() -> None:
    outbox = Outbox(3)
    leases = outbox.leases(3600)
    first = await leases.claim(outbox.unpublished, 2)
    assert first == [ClaimedMessage(message, TWO_O_CLOCK, 4600) for message in outbox.messages[:2]]
    assert [each.message for each in await leases.claim(outbox.unpublished, 2)] == outbox.messages[2:]


async def test_held_events_do_not_hide_the_free_ones_behind_them() -> None:
    outbox = Outbox(10)
    leases = outbox.leases(3600)
    handed = [(await leases.claim(outbox.unpublished, 1))[0].message for _ in range(10)]
    assert handed == outbox.messages


async def test_an_event_is_free_again_the_moment_its_lease_is_over() -> None:
    outbox = Outbox(1)
    leases = outbox.leases(3600)
    await leases.claim(outbox.unpublished, 1)
    outbox.time += 3600
    (again,) = await leases.claim(outbox.unpublished, 1)
    assert (again.message, again.expires_at) == (outbox.messages[0], 8200)


async def test_a_claim_waits_until_it_is_woken() -> None:
    outbox = Outbox(0)
    leases = outbox.leases(3600)
    claim = asyncio.create_task(leases.claim(outbox.unpublished, 1))
    await outbox.asked.wait()
    outbox.messages = [a_message()]
    leases.wake()
    assert [each.message for each in await claim] == outbox.messages


async def test_what_is_saved_while_the_outbox_is_being_read_is_not_missed() -> None:
    outbox = Outbox(0)
    leases = outbox.leases(3600)

    async def unpublished(limit: int) -> Sequence[tuple[datetime, Message]]:
        found = await outbox.unpublished(limit)
        if not outbox.messages:
            outbox.messages = [a_message()]
            leases.wake()
        return found

    assert [each.message for each in await leases.claim(unpublished, 1)] == outbox.messages


async def test_what_nobody_woke_for_is_found_however_long_a_lease_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clinic.adapters.leases.MAX_WAIT", 0.01)
    outbox = Outbox(0)
    claim = asyncio.create_task(outbox.leases(3600).claim(outbox.unpublished, 1))
    await outbox.asked.wait()
    outbox.messages = [a_message()]
    assert [each.message for each in await asyncio.wait_for(claim, 10)] == outbox.messages


async def test_the_sweep_finds_what_nobody_woke_for() -> None:
    outbox = Outbox(0)
    leases = outbox.leases(0.01)
    claim = asyncio.create_task(leases.claim(outbox.unpublished, 1))
    await outbox.asked.wait()
    outbox.messages = [a_message()]
    assert [each.message for each in await claim] == outbox.messages


async def test_an_event_that_was_forgotten_and_is_saved_again_is_handed_over() -> None:
    outbox = Outbox(1)
    leases = outbox.leases(3600)
    await leases.claim(outbox.unpublished, 1)
    leases.release([outbox.messages[0].id, "unknown"])
    assert [each.message for each in await leases.claim(outbox.unpublished, 1)] == outbox.messages
