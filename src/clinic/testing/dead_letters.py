"""What every store of dead letters must do.

Each test's name is a sentence of the port's docstring, or follows from one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from itertools import product
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from msgspec.structs import asdict, replace

from clinic.domain.errors import Conflict, NotFound, Refused, Unavailable
from clinic.domain.messaging.dead_letters import (
    MAX_HEADERS,
    MAX_HISTORY,
    MAX_TEXT,
    MAX_VALUE,
    NEXT_STATE,
    DeadLetter,
    DeadLetterFilter,
    DeadLetters,
    Headers,
    RecordedEntry,
    letter_of,
)
from clinic.domain.messaging.messages import Delivery
from clinic.testing.builders import (
    ONE_O_CLOCK,
    TWO_O_CLOCK,
    a_delivery,
    a_history_entry,
    a_letter,
    a_message,
)
from clinic.testing.dead_letters_machine import DeadLettersMachine
from clinic.testing.subject import Contract

NINE_MB = 9 * 1024 * 1024


def _large(what: str) -> Delivery:
    """A message of which a part is larger than any letter should be."""
    huge = b"x" * NINE_MB
    message = a_message(id="1", subject="s" * NINE_MB if what == "subject" else "s", type="t" * 300)
    headers: Headers = (("ce_id", b"1"), ("ce_type", b"t"), ("content-type", b"application/json"))
    match what:
        case "id":
            headers = (("ce_id", huge), *headers)
        case "other":
            headers = (("other", huge), *headers, ("n" * NINE_MB, None))
        case "many":
            headers = (*((str(number), None) for number in range(100_000)), *headers)
        case "everything":
            headers = (("ce_id", huge), ("other", huge), *headers)
    return replace(
        a_delivery(message),
        headers=headers,
        key=huge if what in {"key", "everything"} else b"key",
        value=huge if what == "everything" else b"{",
    )


class DeadLettersContract(Contract):
    """Dead letters."""

    def opened(self, where: Path) -> AbstractAsyncContextManager[DeadLetters]:
        """The subject on the data at that place; leaving ends its process."""
        raise NotImplementedError

    def unanswering(self, where: Path) -> AbstractAsyncContextManager[DeadLetters]:
        """A subject whose server or file is gone. Not asked for where it `always_answers`."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def letters(self, where: Path) -> AsyncIterator[DeadLetters]:
        async with self.opened(where) as letters:
            yield letters

    def test_any_history_of_calls_goes_as_a_simple_model_says(self, where: Path) -> None:
        self.goes_as_its_model(lambda: DeadLettersMachine(self, self.opened, where))

    async def test_each_is_kept_under_its_position(self, letters: DeadLetters) -> None:
        kept = [a_letter(position=f"log/{number}", reason=f"reason {number}") for number in range(3)]
        await letters.add(kept)
        assert [await letters.get(each.position) for each in kept] == kept
        assert list(await letters.page(DeadLetterFilter(), 10)) == [each.listed() for each in kept]

    async def test_one_that_is_there_already_keeps_its_first_sight_and_gains_attempts(
        self, letters: DeadLetters
    ) -> None:
        await letters.add([a_letter()])
        await letters.add([a_letter(first_seen=TWO_O_CLOCK, last_seen=TWO_O_CLOCK)])
        assert await letters.get("log/1") == a_letter(
            attempts=2, first_seen=ONE_O_CLOCK, last_seen=TWO_O_CLOCK
        )

    async def test_the_same_arrival_never_counts_twice_however_often_it_is_retried(
        self, letters: DeadLetters
    ) -> None:
        first, second = a_letter(), a_letter(last_seen=TWO_O_CLOCK)
        for arrival in (first, first, second, second, first, second, first):
            await letters.add([arrival])
        await letters.add([second, second])
        assert await letters.get("log/1") == a_letter(attempts=2, last_seen=TWO_O_CLOCK)

    @pytest.mark.parametrize("large", ["id", "other", "many", "key", "subject", "everything"])
    async def test_what_foreign_producers_write_is_kept_within_a_bound(
        self, letters: DeadLetters, large: str
    ) -> None:
        letter = letter_of(_large(large), Refused("?" * NINE_MB, code="!" * NINE_MB))
        await letters.add([letter])
        kept = await letters.get(letter.position)
        assert kept == letter
        assert len(msgspec.msgpack.encode(kept)) < MAX_VALUE + MAX_HEADERS + 10 * MAX_TEXT
        assert kept.cut == (large != "subject")
        if large in {"other", "many", "key"}:
            assert set(_large("none").headers) <= set(kept.headers)

    async def test_one_that_is_there_already_has_the_reason_and_the_group_of_the_last_one(
        self, letters: DeadLetters
    ) -> None:
        await letters.add([a_letter()])
        latest = {"reason": "still not", "code": "still", "group": "still"}
        await letters.add([a_letter(**latest)])
        assert await letters.get("log/1") == a_letter(**latest)
        assert [each.group for each in await letters.groups()] == ["still"]

    async def test_one_that_is_there_already_keeps_its_state_and_its_history(
        self, letters: DeadLetters
    ) -> None:
        await letters.add([letter := a_letter()])
        await letters.record(letter, a_history_entry())
        await letters.add([replace(letter, last_seen=TWO_O_CLOCK)])
        assert await letters.get("log/1") == a_letter(
            state="replayed", history=(a_history_entry(),), attempts=2, last_seen=TWO_O_CLOCK
        )

    @pytest.mark.parametrize(
        "odd",
        [
            {"headers": ()},
            {"headers": (("a", b"1"), ("a", b"2"), ("A", b"1"), ("a", b"1"))},
            {"headers": (("null", None), ("empty", b""), ("", b"no name"))},
            {"headers": (("binary", bytes(range(256))), ("grüße", "grüße".encode()))},
            {"value": None, "length": 0},
            {"value": b"", "length": 0},
            {"value": bytes(range(256)) * 4096, "length": 2**40},
            {"key": None},
            {"key": b"\x00\xff"},
            {"message_id": "", "reason": "a\x00b 'quoted' \N{PILE OF POO}"},
            {"about": "", "type": "", "published_at": TWO_O_CLOCK + timedelta(milliseconds=1)},
            {"about": "a\x00b 'quoted' \N{PILE OF POO}", "type": "$type.of.0"},
        ],
        ids=range(12),
    )
    async def test_whatever_arrived_is_kept_as_it_was(
        self, letters: DeadLetters, odd: dict[str, object]
    ) -> None:
        letter: DeadLetter = a_letter(**odd)
        await letters.add([letter])
        assert await letters.get(letter.position) == letter
        assert list(await letters.page(DeadLetterFilter(), 10)) == [letter.listed()]

    async def test_a_page_shows_letters_by_position_from_behind_a_given_one(
        self, letters: DeadLetters
    ) -> None:
        kept = [a_letter(position=f"log/{number}") for number in "13579"]
        await letters.add(kept[::-1])
        kept = [each.listed() for each in kept]
        assert list(await letters.page(DeadLetterFilter(), 2)) == kept[:2]
        assert list(await letters.page(DeadLetterFilter(), 2, "log/3")) == kept[2:4]
        assert list(await letters.page(DeadLetterFilter(), 10, "log/4")) == kept[2:]

    async def test_a_page_shows_the_letters_that_meet_every_condition_that_is_set(
        self, letters: DeadLetters
    ) -> None:
        shapes = list(
            product(("waiting", "replayed", "discarded"), ("one", "other"), ("an appointment", "another"))
        )
        kept = [
            a_letter(position=f"log/{number:02}", state=state, group=group, about=about)
            for number, (state, group, about) in enumerate(shapes)
        ]
        await letters.add(kept)
        for state, group, about in product(
            (None, "waiting", "discarded"), (None, "one"), (None, "another", "nobody")
        ):
            wanted = DeadLetterFilter(state, group, about)  # type: ignore[arg-type]
            expected = [
                each.listed()
                for each in kept
                if state in (None, each.state) and group in (None, each.group) and about in (None, each.about)
            ]
            assert list(await letters.page(wanted, 20)) == expected, wanted
            assert (
                list(await letters.page(wanted, 2, "log/03"))
                == [each for each in expected if each.position > "log/03"][:2]
            )

    async def test_a_page_shows_the_letters_of_a_certain_message(self, letters: DeadLetters) -> None:
        kept = [
            a_letter(position=f"log/{number}", about=str(number % 2), message_id=f"id {number % 3}")
            for number in range(6)
        ]
        await letters.add(kept)
        of_one = DeadLetterFilter(message_id="id 2")
        assert [each.position for each in await letters.page(of_one, 10)] == ["log/2", "log/5"]
        assert [each.position for each in await letters.page(of_one, 2, "log/2")] == ["log/5"]
        assert [each.position for each in await letters.page(replace(of_one, about="1"), 10)] == ["log/5"]
        assert list(await letters.page(DeadLetterFilter(message_id="nobody's"), 10)) == []

    async def test_a_letter_is_found_by_its_position(self, letters: DeadLetters) -> None:
        kept = [a_letter(position=position) for position in ("topic/1/2", "topic/1/23", "topic/1")]
        await letters.add(kept)
        assert [await letters.get(each.position) for each in kept] == kept

    async def test_a_letter_that_was_never_kept_is_not_found(self, letters: DeadLetters) -> None:
        with pytest.raises(NotFound, match="log/1"):
            await letters.get("log/1")
        with pytest.raises(NotFound, match="log/1"):
            await letters.record(a_letter(), a_history_entry())
        assert list(await letters.page(DeadLetterFilter(), 10)) == []

    async def test_a_group_shows_its_counts_a_reason_and_its_first_and_last_sight(
        self, letters: DeadLetters
    ) -> None:
        later = TWO_O_CLOCK + timedelta(hours=1)
        assert list(await letters.groups()) == []
        await letters.add([
            a_letter(position="log/1", group="b", reason="price 2", first_seen=TWO_O_CLOCK, last_seen=later),
            a_letter(
                position="log/2", group="b", reason="price 1", first_seen=ONE_O_CLOCK, last_seen=TWO_O_CLOCK
            ),
            a_letter(
                position="log/3",
                group="b",
                reason="price 3",
                state="replayed",
                first_seen=TWO_O_CLOCK,
                last_seen=TWO_O_CLOCK,
            ),
            a_letter(position="log/4", group="a", reason="no type", state="discarded"),
        ])  # fmt: skip
        first, second = await letters.groups()
        nothing = {"waiting": 0, "replayed": 0, "discarded": 0}
        seen = {"first_seen": ONE_O_CLOCK, "last_seen": ONE_O_CLOCK}
        assert asdict(first) == nothing | seen | {"group": "a", "discarded": 1, "reason": "no type"}
        assert second.reason in {"price 1", "price 2", "price 3"}
        assert asdict(second) == nothing | {
            "group": "b",
            "waiting": 2,
            "replayed": 1,
            "reason": second.reason,
            "first_seen": ONE_O_CLOCK,
            "last_seen": later,
        }

    @pytest.mark.parametrize(
        ("before", "event", "state"),
        [
            ("waiting", "replayed", "replayed"),
            ("waiting", "failed again", "waiting"),
            ("waiting", "discarded", "discarded"),
            ("discarded", "replayed", "replayed"),
            ("discarded", "failed again", "discarded"),
        ],
    )
    async def test_an_entry_is_recorded_with_the_state_that_follows(
        self, letters: DeadLetters, before: str, event: str, state: str
    ) -> None:
        await letters.add([letter := a_letter(state=before)])
        await letters.record(
            letter, entry := a_history_entry(event=event, by="b\x00b 'quoted'", note="\N{PILE OF POO}")
        )
        assert await letters.get("log/1") == a_letter(state=state, history=(entry,))
        assert [each.position for each in await letters.page(DeadLetterFilter(state=state), 10)] == ["log/1"]  # type: ignore[arg-type]
        (group,) = await letters.groups()
        assert getattr(group, state) == 1

    async def test_entries_stay_in_the_order_in_which_they_were_recorded(self, letters: DeadLetters) -> None:
        await letters.add([letter := a_letter()])
        entries = [a_history_entry(event="failed again", note=str(number)) for number in range(3)]
        for entry in entries:
            await letters.record(letter, entry)
            letter = await letters.get("log/1")
        assert list(letter.history) == entries

    async def test_a_letter_shows_its_newest_entries_and_counts_them_all(self, letters: DeadLetters) -> None:
        await letters.add([letter := a_letter()])
        entries = [a_history_entry(event="failed again", note=str(each)) for each in range(MAX_HISTORY + 2)]
        for entry in entries:
            await letters.record(letter, entry)
            letter = letter.with_entry(entry)
        assert await letters.get("log/1") == letter
        assert (letter.entries, list(letter.history)) == (MAX_HISTORY + 2, entries[2:])
        assert list(await letters.page(DeadLetterFilter(), 10)) == [letter.listed()]

    @pytest.mark.parametrize("steps", range(0, 40, 2))
    async def test_a_crash_while_recording_leaves_entry_and_state_together(
        self, letters: DeadLetters, steps: int
    ) -> None:
        await letters.add([letter := a_letter()])
        dying = asyncio.create_task(letters.record(letter, discarded := a_history_entry(event="discarded")))
        for _ in range(steps):
            await asyncio.sleep(0)
        dying.cancel()
        await asyncio.wait([dying])
        found = await letters.get("log/1")
        assert found in (letter, letter.with_entry(discarded))
        with suppress(Conflict):  # what was begun may be done a moment later
            await letters.record(found, a_history_entry())
        found = await letters.get("log/1")
        assert found.state == NEXT_STATE[found.history[-1].event]
        await letters.record(found, a_history_entry(note="afterwards"))
        assert (await letters.get("log/1")).history[-1].note == "afterwards"

    async def test_an_entry_over_another_since_it_was_read_is_a_conflict(self, letters: DeadLetters) -> None:
        await letters.add([letter := a_letter()])
        await letters.record(letter, first := a_history_entry(event="failed again"))
        with pytest.raises(Conflict, match="log/1"):
            await letters.record(letter, a_history_entry(event="discarded", by="bob"))
        assert await letters.get("log/1") == a_letter(history=(first,))

    async def test_the_history_of_all_letters_shows_each_entry_once_the_newest_first(
        self, letters: DeadLetters
    ) -> None:
        entries = [
            (f"log/{number % 2}", a_history_entry(event="failed again", at=at, note=str(number)))
            for number, at in enumerate([TWO_O_CLOCK, ONE_O_CLOCK, TWO_O_CLOCK, ONE_O_CLOCK, ONE_O_CLOCK])
        ]
        assert list(await letters.history(10)) == []
        await letters.add([a_letter(position="log/0"), a_letter(position="log/1")])
        for position, entry in entries:
            await letters.record(await letters.get(position), entry)
        found = list(await letters.history(10))
        assert [entry.at for _, entry in found] == [TWO_O_CLOCK] * 2 + [ONE_O_CLOCK] * 3
        as_kept = sorted((cursor.position, entry.note) for cursor, entry in found)
        assert as_kept == sorted((position, entry.note) for position, entry in entries)
        for size in (1, 2, 3):
            paged: list[RecordedEntry] = []
            after = None
            while part := await letters.history(size, after):
                paged += part
                after = part[-1][0]
            assert paged == found

    async def test_of_many_who_settle_at_once_exactly_one_does(self, letters: DeadLetters) -> None:
        await letters.add([letter := a_letter()])
        attempts = [letters.record(letter, a_history_entry(by=str(number))) for number in range(20)]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        (won,) = [number for number, outcome in enumerate(outcomes) if outcome is None]
        assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 19
        assert [each.by for each in (await letters.get("log/1")).history] == [str(won)]

    async def test_one_that_arrives_again_between_is_no_conflict(self, letters: DeadLetters) -> None:
        await letters.add([letter := a_letter()])
        await letters.add([replace(letter, last_seen=TWO_O_CLOCK)])
        await letters.record(letter, a_history_entry())
        assert await letters.get("log/1") == a_letter(
            attempts=2, last_seen=TWO_O_CLOCK, state="replayed", history=(a_history_entry(),)
        )

    async def test_every_call_raises_unavailable_when_the_store_does_not_answer(self, where: Path) -> None:
        self.only_if(not self.always_answers, "it always answers")
        async with self.unanswering(where) as letters:
            for call in (
                letters.add([a_letter()]),
                letters.get("log/1"),
                letters.page(DeadLetterFilter(), 1),
                letters.groups(),
                letters.history(1),
                letters.record(a_letter(), a_history_entry()),
            ):
                with pytest.raises(Unavailable):
                    await self.soon(call)

    async def test_what_was_kept_outlives_the_process(self, where: Path) -> None:
        async with self.opened(where) as letters:
            await letters.add([letter := a_letter()])
            await letters.record(letter, a_history_entry())
        async with self.opened(where) as letters:
            kept = a_letter(state="replayed", history=(a_history_entry(),)).listed()
            assert list(await letters.page(DeadLetterFilter(), 10)) == ([kept] if self.survives else [])
