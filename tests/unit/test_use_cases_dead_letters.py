"""What a person does with dead letters, on the memory store and on SQLite: each is charged once at most, and
nothing is lost.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import uniform
from time import monotonic
from typing import Any, Literal

import pytest
from msgspec.structs import replace

from clinic.adapters import cloudevents
from clinic.adapters.memory.charges import MemoryCharges
from clinic.adapters.memory.dead_letters import MemoryDeadLetters
from clinic.adapters.memory.transport import MemoryLog, MemoryPublisher, MemorySubscription
from clinic.adapters.sqlite.charges import SqliteCharges
from clinic.adapters.sqlite.dead_letters import SqliteDeadLetters
from clinic.adapters.sqlite.file import SqliteFile, scripts
from clinic.domain.errors import NotFound, Unavailable, Unreadable
from clinic.domain.events import AppointmentFinished, from_message, to_message
from clinic.domain.financial.dead_letters import (
    PAGE_SIZE,
    DeadLetterSelection,
    DiscardDeadLetters,
    FindDeadLetter,
    GroupDeadLetters,
    ListDeadLetters,
    Outcome,
    ReplayDeadLetters,
)
from clinic.domain.financial.model import Charge
from clinic.domain.financial.ports import ChargeFilter, Charges
from clinic.domain.financial.pricing import POLICIES
from clinic.domain.financial.use_cases import ChargeAppointments, Charged, PreviewCharges
from clinic.domain.messaging.consumer import Consumer
from clinic.domain.messaging.dead_letters import (
    MAX_VALUE,
    DeadLetter,
    DeadLetterFilter,
    DeadLetters,
    HistoryEntry,
    letter_of,
)
from clinic.domain.messaging.messages import Delivery, Message, Received
from clinic.domain.messaging.ports import Subscription
from clinic.domain.money import Money
from clinic.testing.builders import (
    EXTENSIONS,
    MANY_EXTENSIONS,
    ONE_O_CLOCK,
    TWO_O_CLOCK,
    Fault,
    FragileDeadLetters,
    NoWait,
    RecordedTelemetry,
    StandingClock,
    a_delivery,
    a_history_entry,
    a_letter,
    a_message,
    an_event,
    an_origin,
    now,
    opened,
    running,
)

ALL = DeadLetterSelection()


def a_letter_of(event: AppointmentFinished, position: str = "log/1", **changes: Any) -> DeadLetter:
    """The event of this appointment, dead-lettered although nothing is wrong with it (any more)."""
    message = to_message(event)
    value = message.data or b""
    default = a_letter(
        position=position,
        about=message.subject,
        type=message.type,
        published_at=ONE_O_CLOCK,
        key=message.key.encode(),
        headers=tuple(cloudevents.headers(message)),
        value=value,
        length=len(value),
    )
    return replace(default, **changes)


class FinancialWorld:
    """Charges and dead letters, and those who work on them."""

    def __init__(self, charges: Charges, letters: DeadLetters) -> None:
        self.charges = charges
        self.letters = letters
        self.clock = StandingClock(TWO_O_CLOCK)
        self.telemetry = RecordedTelemetry()
        self.log = MemoryLog()
        pricing = POLICIES["hours-begun"]
        self.charge = ChargeAppointments(charges, pricing, self.clock, self.telemetry)
        self.preview = PreviewCharges(charges, pricing, self.clock)
        self.discarding = DiscardDeadLetters(letters, self.clock, self.telemetry)

    @property
    def replaying(self) -> ReplayDeadLetters:
        return ReplayDeadLetters(
            self.letters,
            cloudevents.message,
            from_message,
            self.charge,
            self.preview,
            self.clock,
            self.telemetry,
        )

    async def replay(
        self, chosen: DeadLetterSelection = ALL, by: str = "anna", *, dry_run: bool = False
    ) -> list[str]:
        """The sentence of each outcome."""
        return [each.sentence async for each in self.replaying(chosen, by, dry_run=dry_run)]

    async def discard(
        self,
        chosen: DeadLetterSelection = ALL,
        reason: str = "a test",
        by: str = "bob",
        *,
        dry_run: bool = False,
    ) -> list[str]:
        """The sentence of each outcome."""
        return [each.sentence async for each in self.discarding(chosen, reason, by, dry_run=dry_run)]

    async def charged(self) -> list[Charge]:
        return list(await self.charges.page(ChargeFilter(), 1000))

    async def kept(self) -> list[DeadLetter]:
        return [
            await self.letters.get(each.position)
            for each in await self.letters.page(DeadLetterFilter(), 1000)
        ]


@pytest.fixture(params=["memory", "sqlite"])
async def financial(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FinancialWorld]:
    if request.param == "memory":
        yield FinancialWorld(MemoryCharges(), MemoryDeadLetters())
        return
    async with opened(SqliteFile(tmp_path / "financial.db", *scripts("financial"))) as file:
        yield FinancialWorld(SqliteCharges(file), SqliteDeadLetters(file))


async def test_what_waits_is_listed_found_and_grouped_with_the_largest_group_first(
    financial: FinancialWorld,
) -> None:
    letters = [a_letter(position=f"log/{number}", group="many" if number else "few") for number in range(3)]
    await financial.letters.add(letters)
    assert list(await ListDeadLetters(financial.letters)(DeadLetterFilter("waiting"), 2)) == [
        each.listed() for each in letters[:2]
    ]
    assert list(await ListDeadLetters(financial.letters)(DeadLetterFilter(), 2, "log/1")) == [
        each.listed() for each in letters[2:]
    ]
    assert await FindDeadLetter(financial.letters)("log/1") == letters[1]
    assert [(each.group, each.waiting) for each in await GroupDeadLetters(financial.letters)()] == [
        ("many", 2),
        ("few", 1),
    ]
    with pytest.raises(NotFound):
        await FindDeadLetter(financial.letters)("log/9")


async def test_a_replay_after_the_fix_charges_once_and_notes_who_did_it(financial: FinancialWorld) -> None:
    event = an_event()
    await financial.letters.add([a_letter_of(event, attempts=3, first_seen=ONE_O_CLOCK)])
    assert await financial.replay(DeadLetterSelection(position="log/1")) == ["charged 400.00"]
    (charge,), (letter,) = await financial.charged(), await financial.kept()
    assert (charge.appointment_id, charge.total, charge.charged_at) == (
        event.appointment_id,
        Money("400.00"),
        TWO_O_CLOCK,
    )
    assert (charge.origin.position, charge.origin.published_at, charge.origin.attempts) == (
        "log/1",
        ONE_O_CLOCK,
        4,
    )
    assert (letter.state, letter.history) == (
        "replayed",
        (HistoryEntry("replayed", "anna", TWO_O_CLOCK, "charged 400.00"),),
    )
    assert financial.telemetry.named("replayed") == [
        {"position": "log/1", "by": "anna", "note": "charged 400.00"}
    ]


async def test_a_replay_reads_the_extensions_that_came(financial: FinancialWorld) -> None:
    message, read = a_message(extensions=(*EXTENSIONS, *MANY_EXTENSIONS[1:])), list[Message]()
    await financial.letters.add([letter_of(a_delivery(message), Unreadable("not yet"))])

    def reading(message: Message) -> AppointmentFinished | None:
        read.append(message)
        return from_message(message)

    ports = financial.charge, financial.preview, financial.clock, financial.telemetry
    replay = ReplayDeadLetters(financial.letters, cloudevents.message, reading, *ports)
    assert [each.outcome async for each in replay(ALL, "anna")] == ["charged"]
    assert read == [message]


async def test_a_replay_of_what_is_charged_changes_no_charge(financial: FinancialWorld) -> None:
    event = an_event()
    await financial.charge([Received(event, an_origin(position="log/0"))])
    before = await financial.charged()
    await financial.letters.add([a_letter_of(event)])
    assert await financial.replay() == ["already charged 400.00"]
    assert await financial.replay(DeadLetterSelection(position="log/1"), "bob") == ["already charged 400.00"]
    assert await financial.charged() == before
    (letter,) = await financial.kept()
    assert [(each.event, each.by) for each in letter.history] == [("replayed", "anna"), ("replayed", "bob")]


async def test_a_letter_that_differs_from_the_charge_changes_nothing_and_is_reported(
    financial: FinancialWorld,
) -> None:
    event = an_event()
    later = replace(event, price=Money("1.00"))
    await financial.letters.add([a_letter_of(event, "log/1"), a_letter_of(later, "log/2")])
    assert await financial.replay(dry_run=True) == [
        "charged 400.00",
        "charged 2.00",
    ]  # each as things are now
    assert await financial.replay() == ["charged 400.00", "differs from its charge: 400.00"]
    assert [charge.total for charge in await financial.charged()] == [Money("400.00")]
    assert [letter.state for letter in await financial.kept()] == ["replayed", "replayed"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"value": b"{", "length": 1}, "data that cannot be read"),
        ({"headers": ()}, "names no event type"),
        ({"headers": (("ce_type", b"clinic.appointment.finished.v2"),)}, "not known here"),
        ({"value": b"x" * MAX_VALUE, "length": MAX_VALUE + 1}, "only 1048576 of its 1048577 bytes were kept"),
        ({"cut": True}, "only a part of its key and headers were kept"),
    ],
    ids=["data", "no type", "version", "value cut", "headers cut"],
)
async def test_what_fails_again_waits_on_with_the_reason(
    financial: FinancialWorld, changes: dict[str, Any], reason: str
) -> None:
    await financial.letters.add([letter := a_letter_of(an_event(), **changes)])
    for _ in range(2):
        (sentence,) = await financial.replay()
        assert sentence.startswith("failed again: ")
        assert reason in sentence
    (kept,) = await financial.kept()
    assert (kept.state, kept.reason, await financial.charged()) == ("waiting", letter.reason, [])
    assert [(each.event, each.by) for each in kept.history] == [("failed again", "anna")] * 2
    assert reason in kept.history[0].note
    assert len(financial.telemetry.named("failed again")) == 2


async def test_what_cannot_be_charged_fails_again_and_the_rest_goes_on(financial: FinancialWorld) -> None:
    beyond = an_event(price=Money("9999999999999.99"))
    await financial.letters.add(
        [a_letter_of(an_event(), "log/1"), a_letter_of(beyond, "log/2"), a_letter_of(an_event(), "log/3")]
    )
    sentences = await financial.replay()
    assert [sentences[0], sentences[2]] == ["charged 400.00"] * 2
    assert "not a valid amount" in sentences[1]
    assert [letter.state for letter in await financial.kept()] == ["replayed", "waiting", "replayed"]


async def test_what_is_not_for_accounting_is_replayed_with_nothing_to_charge(
    financial: FinancialWorld,
) -> None:
    other = "clinic.appointment.moved.v1"
    await financial.letters.add([a_letter_of(an_event(), headers=(("ce_type", other.encode()),), type=other)])
    assert await financial.replay() == [f"nothing to charge: {other} is not for accounting"]
    assert ([letter.state for letter in await financial.kept()], await financial.charged()) == (
        ["replayed"],
        [],
    )


async def test_a_dry_run_says_the_same_and_writes_nothing(financial: FinancialWorld) -> None:
    charged = an_event()
    await financial.charge([Received(charged, an_origin(position="log/0"))])
    await financial.letters.add([
        a_letter_of(an_event(), "log/1"),
        a_letter_of(charged, "log/2"),
        a_letter_of(replace(charged, price=Money("1.00")), "log/3"),
        a_letter(position="log/4"),
        a_letter_of(an_event(price=Money("9999999999999.99")), "log/5"),
    ])  # fmt: skip
    before = await financial.kept()
    charges = await financial.charged()
    telemetry = list(financial.telemetry)
    foreseen = await financial.replay(dry_run=True)
    assert await financial.discard(dry_run=True) == ["discarded: a test"] * 5
    assert (await financial.kept(), await financial.charged(), list(financial.telemetry)) == (
        before,
        charges,
        telemetry,
    )
    assert await financial.replay() == foreseen


async def test_all_are_those_that_wait_however_many_in_the_order_of_their_positions(
    financial: FinancialWorld,
) -> None:
    count = 2 * PAGE_SIZE + 1
    await financial.letters.add([a_letter_of(an_event(), f"log/{number:03}") for number in range(count)])
    assert await financial.discard(DeadLetterSelection(position="log/007")) == ["discarded: a test"]
    outcomes = [each async for each in financial.replaying(ALL, "anna")]
    assert [each.position for each in outcomes] == [
        f"log/{number:03}" for number in range(count) if number != 7
    ]
    assert len(await financial.charged()) == count - 1
    assert await financial.replay() == []


async def test_a_group_is_replayed_or_discarded_without_the_others(financial: FinancialWorld) -> None:
    letters = [a_letter_of(an_event(), f"log/{number}", group=f"group {number % 2}") for number in range(4)]
    await financial.letters.add(letters)
    assert await financial.replay(DeadLetterSelection(group="group 0")) == ["charged 400.00"] * 2
    assert await financial.discard(DeadLetterSelection(group="group 1")) == ["discarded: a test"] * 2
    assert await financial.replay(DeadLetterSelection(group="group 1")) == []
    assert [letter.state for letter in await financial.kept()] == ["replayed", "discarded"] * 2
    with pytest.raises(NotFound, match="group 2"):
        await financial.replay(DeadLetterSelection(group="group 2"))
    with pytest.raises(NotFound, match="group 2"):
        await financial.discard(DeadLetterSelection(group="group 2"))


@pytest.mark.parametrize("limit", [1, PAGE_SIZE, PAGE_SIZE + 1, 3 * PAGE_SIZE])
async def test_some_at_a_time_lead_through_all_also_where_they_fail_again(
    financial: FinancialWorld, limit: int
) -> None:
    positions = [f"log/{number:03}" for number in range(2 * PAGE_SIZE + 2)]
    await financial.letters.add([a_letter(position=position) for position in positions])
    seen: list[str] = []
    while some := [
        each
        async for each in financial.replaying(
            DeadLetterSelection(limit=limit, after=seen[-1] if seen else ""), "anna"
        )
    ]:
        assert len(some) <= limit
        seen += [each.position for each in some]
    assert seen == positions


async def test_one_can_be_replayed_whatever_its_state(financial: FinancialWorld) -> None:
    await financial.letters.add([a_letter_of(an_event())])
    assert await financial.discard() == ["discarded: a test"]
    assert (await financial.replay(), await financial.replay(DeadLetterSelection(position="log/1"))) == (
        [],
        ["charged 400.00"],
    )
    (letter,) = await financial.kept()
    assert (letter.state, [each.event for each in letter.history]) == ("replayed", ["discarded", "replayed"])


async def test_discarding_keeps_the_letter_with_the_reason_and_who_gave_it(financial: FinancialWorld) -> None:
    await financial.letters.add([letter := a_letter()])
    assert await financial.discard(reason="sent by a test", by="bob") == ["discarded: sent by a test"]
    entry = HistoryEntry("discarded", "bob", TWO_O_CLOCK, "sent by a test")
    assert await financial.kept() == [replace(letter, state="discarded", entries=1, history=(entry,))]
    assert financial.telemetry.named("discarded") == [
        {"position": "log/1", "by": "bob", "note": "sent by a test"}
    ]


async def test_what_was_replayed_before_is_not_discarded_and_that_is_reported(
    financial: FinancialWorld,
) -> None:
    await financial.letters.add([a_letter_of(an_event())])
    await financial.replay()
    before = await financial.kept()
    for dry_run in (True, False):
        assert await financial.discard(DeadLetterSelection(position="log/1"), dry_run=dry_run) == [
            "handled already: replayed by anna"
        ]
    assert await financial.kept() == before


@pytest.mark.parametrize("blank", ["", " \t\n"])
async def test_without_a_reason_or_a_name_nothing_is_done(financial: FinancialWorld, blank: str) -> None:
    await financial.letters.add([letter := a_letter_of(an_event())])
    for attempt in (financial.discard(reason=blank), financial.discard(by=blank), financial.replay(by=blank)):
        with pytest.raises(Unreadable, match=r"say wh[oy]"):
            await attempt
    assert (await financial.kept(), await financial.charged()) == ([letter], [])


async def test_a_position_that_there_is_not_is_not_found(financial: FinancialWorld) -> None:
    for attempt in (
        financial.replay(DeadLetterSelection(position="log/1")),
        financial.discard(DeadLetterSelection(position="log/1")),
    ):
        with pytest.raises(NotFound, match="log/1"):
            await attempt


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_replay_that_was_charged_and_could_not_be_noted_can_be_repeated(
    financial: FinancialWorld, when: Literal["before", "after"]
) -> None:
    await financial.letters.add([a_letter_of(an_event())])
    sound = financial.letters
    financial.letters = FragileDeadLetters(sound, Fault("record", when, Unavailable("storm")))
    with pytest.raises(Unavailable):
        await financial.replay(DeadLetterSelection(position="log/1"))
    charges = await financial.charged()
    assert len(charges) == 1
    assert await financial.replay(DeadLetterSelection(position="log/1")) == ["already charged 400.00"]
    assert await financial.charged() == charges
    assert [letter.state for letter in await financial.kept()] == ["replayed"]


async def test_a_replay_that_comes_second_says_so_and_overwrites_nothing(
    financial: FinancialWorld,
) -> None:
    await financial.letters.add([a_letter_of(an_event())])
    quicker = a_history_entry(event="discarded", by="bob", note="a test")
    financial.letters = FragileDeadLetters(financial.letters, between=[quicker])
    assert await financial.replay() == ["handled already: discarded by bob meanwhile; here: charged 400.00"]
    (letter,) = await financial.kept()
    assert (letter.state, letter.history) == ("discarded", (quicker,))
    assert financial.telemetry.named("replayed") == []


async def test_a_discard_of_what_was_just_replayed_says_so(financial: FinancialWorld) -> None:
    await financial.letters.add([a_letter_of(an_event())])
    fragile = FragileDeadLetters(financial.letters, between=[a_history_entry()])
    financial.discarding = DiscardDeadLetters(fragile, financial.clock, financial.telemetry)
    assert await financial.discard() == ["handled already: replayed by anna"]
    (letter,) = await financial.kept()
    assert (letter.state, letter.history) == ("replayed", (a_history_entry(),))


async def test_a_failure_that_somebody_noted_meanwhile_keeps_nobody_from_noting_more(
    financial: FinancialWorld,
) -> None:
    await financial.letters.add([a_letter_of(an_event())])
    failed = a_history_entry(event="failed again", by="bob")
    financial.letters = FragileDeadLetters(financial.letters, between=[failed])
    assert await financial.replay() == ["charged 400.00"]
    (letter,) = await financial.kept()
    assert (letter.state, [each.by for each in letter.history]) == ("replayed", ["bob", "anna"])


async def test_of_two_replays_at_once_one_charges_one_notes_and_both_learn_the_outcome(
    financial: FinancialWorld,
) -> None:
    await financial.letters.add([a_letter_of(an_event())])
    both_have_read = asyncio.Barrier(2)

    async def charge(events: Sequence[Received[AppointmentFinished]]) -> Sequence[Charged]:
        await both_have_read.wait()
        charged = await financial.charge(events)
        await both_have_read.wait()
        return charged

    replaying = ReplayDeadLetters(
        financial.letters,
        cloudevents.message,
        from_message,
        charge,
        financial.preview,
        financial.clock,
        financial.telemetry,
    )

    async def replay(by: str) -> Outcome:
        (outcome,) = [each async for each in replaying(ALL, by)]
        return outcome

    outcomes = await asyncio.gather(replay("anna"), replay("bob"))
    assert len(await financial.charged()) == 1
    assert sorted(name for name, _ in financial.telemetry if "charged" in name) == [
        "already charged",
        "charged",
    ]
    (letter,) = await financial.kept()
    (entry,) = letter.history
    lost = [each for each in outcomes if each.outcome == "handled already"]
    assert len(lost) == 1
    assert f"replayed by {entry.by} meanwhile" in lost[0].note


class Insisting(Subscription):
    """Every batch comes so many times: its acknowledgement is lost."""

    def __init__(self, subscription: Subscription, times: int) -> None:
        self._subscription = subscription
        self._left = times
        self.acknowledged = asyncio.Event()

    async def receive(self) -> Sequence[Delivery]:
        return await self._subscription.receive()

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        self._left -= 1
        if self._left:
            raise Unavailable("who knows")
        await self._subscription.acknowledge(batch)
        self.acknowledged.set()


async def test_replays_while_the_consumer_gets_the_same_messages_charge_each_once(
    financial: FinancialWorld,
) -> None:
    mended = asyncio.Event()

    def read_once_it_is_mended(message: Message) -> AppointmentFinished | None:
        if not mended.is_set():
            raise Unreadable("not yet")
        return from_message(message)

    messages = [a_message() for _ in range(3)]
    await MemoryPublisher(financial.log, now).publish(messages)
    subscription = Insisting(MemorySubscription(financial.log, "financial", now), times=30)
    consumer = Consumer(
        subscription,
        read_once_it_is_mended,
        financial.charge,
        financial.letters,
        NoWait(),
        financial.telemetry,
        monotonic,
        uniform,
    )
    async with running(consumer.run()):
        await financial.telemetry.seen("dead-lettered", 3)
        mended.set()
        chosen = [DeadLetterSelection(position=f"{financial.log.id}/{number}") for number in (0, 1, 2)]
        sentences = await asyncio.gather(
            financial.replay(ALL), *(financial.replay(each, "bob") for each in chosen)
        )
        await subscription.acknowledged.wait()
    assert not [each for some in sentences for each in some if "failed" in each]
    assert {str(charge.appointment_id) for charge in await financial.charged()} == {
        message.subject for message in messages
    }
    assert len(financial.telemetry.named("charged")) == 3
    assert financial.telemetry.named("differs from its charge") == []
    assert [letter.state for letter in await financial.kept()] == ["replayed"] * 3
