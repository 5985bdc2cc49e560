"""What a person does with dead letters, on the memory store and on SQLite: each is charged once at most, and nothing is lost."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from builders import (
    ONE_O_CLOCK,
    TWO_O_CLOCK,
    Fault,
    Noticed,
    NoWait,
    StandingClock,
    a_fact,
    a_handling,
    a_letter,
    a_message,
    an_origin,
    now,
    opened,
    running,
)
from msgspec.structs import replace

from clinic.adapters import cloudevents
from clinic.adapters.memory.store import MemoryCharges, MemoryDeadLetters
from clinic.adapters.memory.transport import MemoryLog, MemoryPublisher, MemorySubscription
from clinic.adapters.sqlite.charges import CHARGES, SqliteCharges
from clinic.adapters.sqlite.dead_letters import DEAD_LETTERS, HANDLINGS, READING, SqliteDeadLetters
from clinic.adapters.sqlite.file import SqliteFile
from clinic.domain.errors import NotFound, Unavailable, Unreadable
from clinic.domain.events import AppointmentFinished, read, seal
from clinic.domain.financial.dead_letters import (
    PAGE,
    Chosen,
    DiscardDeadLetters,
    FindDeadLetter,
    GroupDeadLetters,
    ListDeadLetters,
    Outcome,
    ReplayDeadLetters,
)
from clinic.domain.financial.model import Charge
from clinic.domain.financial.ports import Charges, Wanted
from clinic.domain.financial.pricing import POLICIES
from clinic.domain.financial.use_cases import ChargeAppointments, Charged, ForeseeCharges
from clinic.domain.messaging.consumer import KEPT_OF_A_VALUE, Consumer
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetters, Handling, LetterGroup, WantedLetters
from clinic.domain.messaging.messages import Delivery, Message, Told
from clinic.domain.messaging.ports import Subscription
from clinic.domain.money import Money

ALL = Chosen()


def a_letter_of(fact: AppointmentFinished, position: str = "log/1", **changes: Any) -> DeadLetter:
    """The news of this appointment, set aside although nothing is wrong with it (any more)."""
    message = seal(fact)
    value = message.data or b""
    usual = a_letter(
        position=position,
        about=message.subject,
        type=message.type,
        published_at=ONE_O_CLOCK,
        key=message.key.encode(),
        headers=tuple(cloudevents.headers(message)),
        value=value,
        length=len(value),
    )
    return replace(usual, **changes)


class Accounting:
    """Charges and dead letters, and those who work on them."""

    def __init__(self, charges: Charges, letters: DeadLetters) -> None:
        self.charges, self.letters = charges, letters
        self.clock, self.notices, self.log = StandingClock(TWO_O_CLOCK), Noticed(), MemoryLog()
        pricing = POLICIES["hours-begun"]
        self.charge = ChargeAppointments(charges, pricing, self.clock, self.notices)
        self.foresee = ForeseeCharges(charges, pricing, self.clock)
        self.discarding = DiscardDeadLetters(letters, self.clock, self.notices)

    @property
    def replaying(self) -> ReplayDeadLetters:
        return ReplayDeadLetters(self.letters, cloudevents.message, read, self.charge, self.foresee, self.clock, self.notices)

    async def replay(self, chosen: Chosen = ALL, by: str = "anna", *, dry_run: bool = False) -> list[str]:
        """The sentence of each outcome."""
        return [each.sentence async for each in self.replaying(chosen, by, dry_run=dry_run)]

    async def discard(self, chosen: Chosen = ALL, reason: str = "a test", by: str = "bob", *, dry_run: bool = False) -> list[str]:
        """The sentence of each outcome."""
        return [each.sentence async for each in self.discarding(chosen, reason, by, dry_run=dry_run)]

    async def charged(self) -> list[Charge]:
        return list(await self.charges.page(Wanted(), 1000))

    async def kept(self) -> list[DeadLetter]:
        return [await self.letters.get(each.position) for each in await self.letters.page(WantedLetters(), 1000)]


@pytest.fixture(params=["memory", "sqlite"])
async def accounting(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Accounting]:
    if request.param == "memory":
        yield Accounting(MemoryCharges(), MemoryDeadLetters())
        return
    async with opened(SqliteFile(tmp_path / "financial.db", CHARGES + DEAD_LETTERS, HANDLINGS, functions=READING)) as file:
        yield Accounting(SqliteCharges(file), SqliteDeadLetters(file))


async def test_what_waits_is_listed_found_and_grouped_with_the_largest_group_first(accounting: Accounting) -> None:
    letters = [a_letter(position=f"log/{number}", group="many" if number else "few") for number in range(3)]
    await accounting.letters.keep(letters)
    assert list(await ListDeadLetters(accounting.letters)(WantedLetters("waiting"), 2)) == [each.listed() for each in letters[:2]]
    assert list(await ListDeadLetters(accounting.letters)(WantedLetters(), 2, "log/1")) == [each.listed() for each in letters[2:]]
    assert await FindDeadLetter(accounting.letters)("log/1") == letters[1]
    assert [(each.group, each.waiting) for each in await GroupDeadLetters(accounting.letters)()] == [("many", 2), ("few", 1)]
    with pytest.raises(NotFound):
        await FindDeadLetter(accounting.letters)("log/9")


async def test_a_replay_after_the_fix_charges_once_and_notes_who_did_it(accounting: Accounting) -> None:
    fact = a_fact()
    await accounting.letters.keep([a_letter_of(fact, attempts=3, first_seen=ONE_O_CLOCK)])
    assert await accounting.replay(Chosen(position="log/1")) == ["charged 400.00"]
    (charge,), (letter,) = await accounting.charged(), await accounting.kept()
    assert (charge.appointment_id, charge.total, charge.charged_at) == (fact.appointment_id, Money("400.00"), TWO_O_CLOCK)
    assert (charge.origin.position, charge.origin.published_at, charge.origin.attempts) == ("log/1", ONE_O_CLOCK, 4)
    assert (letter.state, letter.handled) == ("replayed", (Handling("replayed", "anna", TWO_O_CLOCK, "charged 400.00"),))
    assert accounting.notices.named("replayed") == [{"position": "log/1", "by": "anna", "note": "charged 400.00"}]


async def test_a_replay_of_what_is_charged_changes_no_charge(accounting: Accounting) -> None:
    fact = a_fact()
    await accounting.charge([Told(fact, an_origin(position="log/0"))])
    before = await accounting.charged()
    await accounting.letters.keep([a_letter_of(fact)])
    assert await accounting.replay() == ["already charged 400.00"]
    assert await accounting.replay(Chosen(position="log/1"), "bob") == ["already charged 400.00"]
    assert await accounting.charged() == before
    (letter,) = await accounting.kept()
    assert [(each.what, each.by) for each in letter.handled] == [("replayed", "anna"), ("replayed", "bob")]


async def test_a_letter_that_says_something_else_than_the_charge_changes_nothing_and_that_is_told(accounting: Accounting) -> None:
    fact = a_fact()
    later = replace(fact, price=Money("1.00"))
    await accounting.letters.keep([a_letter_of(fact, "log/1"), a_letter_of(later, "log/2")])
    assert await accounting.replay(dry_run=True) == ["charged 400.00", "charged 2.00"]  # each as things are now
    assert await accounting.replay() == ["charged 400.00", "differs from its charge: 400.00"]
    assert [charge.total for charge in await accounting.charged()] == [Money("400.00")]
    assert [letter.state for letter in await accounting.kept()] == ["replayed", "replayed"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"value": b"{", "length": 1}, "data that cannot be read"),
        ({"headers": ()}, "names no event type"),
        ({"headers": (("ce_type", b"clinic.appointment.finished.v2"),)}, "not known here"),
        ({"value": b"x" * KEPT_OF_A_VALUE, "length": KEPT_OF_A_VALUE + 1}, "only 1048576 of its 1048577 bytes were kept"),
    ],
    ids=["data", "no type", "version", "cut"],
)
async def test_what_fails_again_waits_on_with_the_reason(accounting: Accounting, changes: dict[str, Any], reason: str) -> None:
    await accounting.letters.keep([letter := a_letter_of(a_fact(), **changes)])
    for _ in range(2):
        (sentence,) = await accounting.replay()
        assert sentence.startswith("failed again: ")
        assert reason in sentence
    (kept,) = await accounting.kept()
    assert (kept.state, kept.reason, await accounting.charged()) == ("waiting", letter.reason, [])
    assert [(each.what, each.by) for each in kept.handled] == [("failed again", "anna")] * 2
    assert reason in kept.handled[0].note
    assert len(accounting.notices.named("failed again")) == 2


async def test_what_cannot_be_charged_fails_again_and_the_rest_goes_on(accounting: Accounting) -> None:
    beyond = a_fact(price=Money("9999999999999.99"))
    await accounting.letters.keep([a_letter_of(a_fact(), "log/1"), a_letter_of(beyond, "log/2"), a_letter_of(a_fact(), "log/3")])
    sentences = await accounting.replay()
    assert [sentences[0], sentences[2]] == ["charged 400.00"] * 2
    assert "no amount of money" in sentences[1]
    assert [letter.state for letter in await accounting.kept()] == ["replayed", "waiting", "replayed"]


async def test_what_is_not_for_accounting_is_replayed_with_nothing_to_charge(accounting: Accounting) -> None:
    other = "clinic.appointment.moved.v1"
    await accounting.letters.keep([a_letter_of(a_fact(), headers=(("ce_type", other.encode()),), type=other)])
    assert await accounting.replay() == [f"nothing to charge: {other} is not for accounting"]
    assert ([letter.state for letter in await accounting.kept()], await accounting.charged()) == (["replayed"], [])


async def test_a_dry_run_tells_the_same_and_writes_nothing(accounting: Accounting) -> None:
    charged = a_fact()
    await accounting.charge([Told(charged, an_origin(position="log/0"))])
    await accounting.letters.keep([
        a_letter_of(a_fact(), "log/1"),
        a_letter_of(charged, "log/2"),
        a_letter_of(replace(charged, price=Money("1.00")), "log/3"),
        a_letter(position="log/4"),
        a_letter_of(a_fact(price=Money("9999999999999.99")), "log/5"),
    ])  # fmt: skip
    before, charges, notices = await accounting.kept(), await accounting.charged(), list(accounting.notices)
    foreseen = await accounting.replay(dry_run=True)
    assert await accounting.discard(dry_run=True) == ["discarded: a test"] * 5
    assert (await accounting.kept(), await accounting.charged(), list(accounting.notices)) == (before, charges, notices)
    assert await accounting.replay() == foreseen


async def test_all_are_those_that_wait_however_many_in_the_order_of_their_positions(accounting: Accounting) -> None:
    count = 2 * PAGE + 1
    await accounting.letters.keep([a_letter_of(a_fact(), f"log/{number:03}") for number in range(count)])
    assert await accounting.discard(Chosen(position="log/007")) == ["discarded: a test"]
    outcomes = [each async for each in accounting.replaying(ALL, "anna")]
    assert [each.position for each in outcomes] == [f"log/{number:03}" for number in range(count) if number != 7]
    assert len(await accounting.charged()) == count - 1
    assert await accounting.replay() == []


async def test_a_group_is_replayed_or_discarded_without_the_others(accounting: Accounting) -> None:
    letters = [a_letter_of(a_fact(), f"log/{number}", group=f"group {number % 2}") for number in range(4)]
    await accounting.letters.keep(letters)
    assert await accounting.replay(Chosen(group="group 0")) == ["charged 400.00"] * 2
    assert await accounting.discard(Chosen(group="group 1")) == ["discarded: a test"] * 2
    assert await accounting.replay(Chosen(group="group 1")) == []
    assert [letter.state for letter in await accounting.kept()] == ["replayed", "discarded"] * 2
    with pytest.raises(NotFound, match="group 2"):
        await accounting.replay(Chosen(group="group 2"))
    with pytest.raises(NotFound, match="group 2"):
        await accounting.discard(Chosen(group="group 2"))


@pytest.mark.parametrize("limit", [1, PAGE, PAGE + 1, 3 * PAGE])
async def test_some_at_a_time_lead_through_all_also_where_they_fail_again(accounting: Accounting, limit: int) -> None:
    positions = [f"log/{number:03}" for number in range(2 * PAGE + 2)]
    await accounting.letters.keep([a_letter(position=position) for position in positions])
    seen: list[str] = []
    while some := [each async for each in accounting.replaying(Chosen(limit=limit, after=seen[-1] if seen else ""), "anna")]:
        assert len(some) <= limit
        seen += [each.position for each in some]
    assert seen == positions


async def test_one_can_be_replayed_whatever_its_state(accounting: Accounting) -> None:
    await accounting.letters.keep([a_letter_of(a_fact())])
    assert await accounting.discard() == ["discarded: a test"]
    assert (await accounting.replay(), await accounting.replay(Chosen(position="log/1"))) == ([], ["charged 400.00"])
    (letter,) = await accounting.kept()
    assert (letter.state, [each.what for each in letter.handled]) == ("replayed", ["discarded", "replayed"])


async def test_discarding_keeps_the_letter_with_the_reason_and_who_gave_it(accounting: Accounting) -> None:
    await accounting.letters.keep([letter := a_letter()])
    assert await accounting.discard(reason="sent by a test", by="bob") == ["discarded: sent by a test"]
    handling = Handling("discarded", "bob", TWO_O_CLOCK, "sent by a test")
    assert await accounting.kept() == [replace(letter, state="discarded", handled=(handling,))]
    assert accounting.notices.named("discarded") == [{"position": "log/1", "by": "bob", "note": "sent by a test"}]


async def test_what_was_handled_before_is_not_discarded_and_that_is_told(accounting: Accounting) -> None:
    await accounting.letters.keep([a_letter_of(a_fact())])
    await accounting.replay()
    before = await accounting.kept()
    for dry_run in (True, False):
        assert await accounting.discard(Chosen(position="log/1"), dry_run=dry_run) == ["handled already: replayed by anna"]
    assert await accounting.kept() == before


@pytest.mark.parametrize("blank", ["", " \t\n"])
async def test_without_a_reason_or_a_name_nothing_is_done(accounting: Accounting, blank: str) -> None:
    await accounting.letters.keep([letter := a_letter_of(a_fact())])
    for attempt in (accounting.discard(reason=blank), accounting.discard(by=blank), accounting.replay(by=blank)):
        with pytest.raises(Unreadable, match=r"say wh[oy]"):
            await attempt
    assert (await accounting.kept(), await accounting.charged()) == ([letter], [])


async def test_a_position_that_there_is_not_is_not_found(accounting: Accounting) -> None:
    for attempt in (accounting.replay(Chosen(position="log/1")), accounting.discard(Chosen(position="log/1"))):
        with pytest.raises(NotFound, match="log/1"):
            await attempt


class FragileDeadLetters(DeadLetters):
    """Something goes wrong at settling, or somebody comes between."""

    def __init__(self, letters: DeadLetters, fault: Fault, between: Sequence[Handling] = ()) -> None:
        self._letters, self._fault, self._between = letters, fault, list(between)

    async def keep(self, letters: Sequence[DeadLetter]) -> None:
        await self._letters.keep(letters)

    async def get(self, position: str) -> DeadLetter:
        return await self._letters.get(position)

    async def page(self, wanted: WantedLetters, limit: int, after: str = "") -> Sequence[DeadLetter]:
        return await self._letters.page(wanted, limit, after)

    async def groups(self) -> Sequence[LetterGroup]:
        return await self._letters.groups()

    async def settle(self, letter: DeadLetter, handling: Handling) -> None:
        if self._between:
            await self._letters.settle(await self.get(letter.position), self._between.pop(0))
        await self._fault("settle", lambda: self._letters.settle(letter, handling))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_replay_that_was_charged_and_could_not_be_noted_can_be_repeated(
    accounting: Accounting, when: Literal["before", "after"]
) -> None:
    await accounting.letters.keep([a_letter_of(a_fact())])
    sound = accounting.letters
    accounting.letters = FragileDeadLetters(sound, Fault("settle", when, Unavailable("storm")))
    with pytest.raises(Unavailable):
        await accounting.replay(Chosen(position="log/1"))
    charges = await accounting.charged()
    assert len(charges) == 1
    assert await accounting.replay(Chosen(position="log/1")) == ["already charged 400.00"]
    assert await accounting.charged() == charges
    assert [letter.state for letter in await accounting.kept()] == ["replayed"]


async def test_a_replay_that_somebody_was_quicker_with_is_told_so_and_overwrites_nothing(accounting: Accounting) -> None:
    await accounting.letters.keep([a_letter_of(a_fact())])
    quicker = a_handling(what="discarded", by="bob", note="a test")
    accounting.letters = FragileDeadLetters(accounting.letters, Fault("none", "before", Unavailable()), [quicker])
    assert await accounting.replay() == ["handled already: discarded by bob meanwhile; here: charged 400.00"]
    (letter,) = await accounting.kept()
    assert (letter.state, letter.handled) == ("discarded", (quicker,))
    assert accounting.notices.named("replayed") == []


async def test_who_discards_what_somebody_has_just_replayed_is_told_so(accounting: Accounting) -> None:
    await accounting.letters.keep([a_letter_of(a_fact())])
    fragile = FragileDeadLetters(accounting.letters, Fault("none", "before", Unavailable()), [a_handling()])
    accounting.discarding = DiscardDeadLetters(fragile, accounting.clock, accounting.notices)
    assert await accounting.discard() == ["handled already: replayed by anna"]
    (letter,) = await accounting.kept()
    assert (letter.state, letter.handled) == ("replayed", (a_handling(),))


async def test_a_failure_that_somebody_noted_meanwhile_keeps_nobody_from_noting_more(accounting: Accounting) -> None:
    await accounting.letters.keep([a_letter_of(a_fact())])
    failed = a_handling(what="failed again", by="bob")
    accounting.letters = FragileDeadLetters(accounting.letters, Fault("none", "before", Unavailable()), [failed])
    assert await accounting.replay() == ["charged 400.00"]
    (letter,) = await accounting.kept()
    assert (letter.state, [each.by for each in letter.handled]) == ("replayed", ["bob", "anna"])


async def test_of_two_replays_at_the_same_moment_one_charges_one_notes_and_both_are_told(accounting: Accounting) -> None:
    await accounting.letters.keep([a_letter_of(a_fact())])
    both_have_read = asyncio.Barrier(2)

    async def charge(told: Sequence[Told[AppointmentFinished]]) -> Sequence[Charged]:
        await both_have_read.wait()
        charged = await accounting.charge(told)
        await both_have_read.wait()
        return charged

    replaying = ReplayDeadLetters(
        accounting.letters, cloudevents.message, read, charge, accounting.foresee, accounting.clock, accounting.notices
    )

    async def replay(by: str) -> Outcome:
        (outcome,) = [each async for each in replaying(ALL, by)]
        return outcome

    outcomes = await asyncio.gather(replay("anna"), replay("bob"))
    assert len(await accounting.charged()) == 1
    assert sorted(what for what, _ in accounting.notices if "charged" in what) == ["already charged", "charged"]
    (letter,) = await accounting.kept()
    (handling,) = letter.handled
    lost = [each for each in outcomes if each.what == "handled already"]
    assert len(lost) == 1
    assert f"replayed by {handling.by} meanwhile" in lost[0].note


class Insisting(Subscription):
    """Every batch comes so many times: its acknowledgement is lost."""

    def __init__(self, subscription: Subscription, times: int) -> None:
        self._subscription, self._left = subscription, times
        self.acknowledged = asyncio.Event()

    async def receive(self) -> Sequence[Delivery]:
        return await self._subscription.receive()

    async def acknowledge(self, batch: Sequence[Delivery]) -> None:
        self._left -= 1
        if self._left:
            raise Unavailable("who knows")
        await self._subscription.acknowledge(batch)
        self.acknowledged.set()


async def test_replays_while_the_consumer_is_handed_the_same_messages_over_and_over_charge_each_once(accounting: Accounting) -> None:
    mended = asyncio.Event()

    def read_once_it_is_mended(message: Message) -> AppointmentFinished | None:
        if not mended.is_set():
            raise Unreadable("not yet")
        return read(message)

    messages = [a_message() for _ in range(3)]
    await MemoryPublisher(accounting.log, now).publish(messages)
    subscription = Insisting(MemorySubscription(accounting.log, "financial", now), times=30)
    consumer = Consumer(
        subscription, read_once_it_is_mended, accounting.charge, accounting.letters, accounting.clock, NoWait(), accounting.notices
    )
    async with running(consumer.run()):
        await accounting.notices.seen("set aside", 3)
        mended.set()
        chosen = [Chosen(position=f"memory/{number}") for number in (0, 1, 2)]
        sentences = await asyncio.gather(accounting.replay(ALL), *(accounting.replay(each, "bob") for each in chosen))
        await subscription.acknowledged.wait()
    assert not [each for some in sentences for each in some if "failed" in each]
    assert {str(charge.appointment_id) for charge in await accounting.charged()} == {message.subject for message in messages}
    assert len(accounting.notices.named("charged")) == 3
    assert accounting.notices.named("differs from its charge") == []
    assert [letter.state for letter in await accounting.kept()] == ["replayed"] * 3
