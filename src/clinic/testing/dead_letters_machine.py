"""Any history of dead letters, beside a model: a dict of them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial
from operator import attrgetter
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import initialize
from msgspec.structs import asdict, replace

from clinic.domain.errors import Conflict, NotFound
from clinic.domain.messaging.dead_letters import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetters,
    HistoryEntry,
    LetterGroup,
)
from clinic.testing.builders import ONE_O_CLOCK, a_history_entry, a_letter
from clinic.testing.machines import Machine, Openable, step
from clinic.testing.subject import Contract

POSITIONS = ["log/0/1", "log/0/12", "log/0/2", "log/1/1"]
positions = st.sampled_from(POSITIONS)
groups = st.sampled_from(["mended", "bad"])
abouts = st.sampled_from(["one", "another"])
message_ids = st.sampled_from(["1", "2", "3"])
times = st.sampled_from([ONE_O_CLOCK + timedelta(milliseconds=number) for number in range(3)])
wanted = st.builds(
    DeadLetterFilter,
    state=st.sampled_from([None, "waiting", "replayed", "discarded"]),
    group=st.none() | groups,
    about=st.none() | abouts,
    message_id=st.none() | message_ids,
)
entries = st.builds(
    a_history_entry,
    event=st.sampled_from(["replayed", "failed again", "discarded"]),
    by=st.sampled_from(["anna", "bob"]),
)


@st.composite
def letters(draw: st.DrawFn) -> DeadLetter:
    position = draw(positions)
    group = draw(groups)
    seen = draw(times)
    return a_letter(
        position=position,
        about=draw(abouts),
        message_id=draw(message_ids),
        group=group,
        reason=f"{group} {draw(st.integers(1, 3))}",
        code=draw(st.sampled_from(["a", "b"])),
        first_seen=seen,
        last_seen=seen,
    )


batches = st.lists(letters(), min_size=1, max_size=4)


class DeadLettersMachine(Machine):
    """Its model is `kept`."""

    def __init__(
        self, suite: Contract, opened: Callable[[Path], AbstractAsyncContextManager[DeadLetters]], where: Path
    ) -> None:
        super().__init__(suite, where)
        self.kept: dict[str, DeadLetter] = {}
        self.letters = Openable(partial(opened, self.where))

    @initialize()
    def begin(self) -> None:
        self.start()

    async def open(self) -> None:
        await self.letters.open()

    async def close(self) -> None:
        await self.letters.close()

    @step(batch=batches)
    async def keep(self, batch: Sequence[DeadLetter]) -> None:
        await self.letters().add(batch)
        for each in batch:
            known = self.kept.get(each.position)
            self.kept[each.position] = seen_again(known, each) if known else each

    @step(position=positions)
    async def get(self, position: str) -> None:
        await self._is_as_kept(position)

    @step(which=wanted, limit=st.integers(1, 5), after=st.just("") | positions)
    async def page(self, which: DeadLetterFilter, limit: int, after: str) -> None:
        expected = [
            each.listed()
            for each in self._in_order()
            if is_letter_wanted(each, which) and each.position > after
        ]
        assert list(await self.letters().page(which, limit, after)) == expected[:limit]

    @step()
    async def groups(self) -> None:
        found = await self.letters().groups()
        assert [each.group for each in found] == sorted({each.group for each in self.kept.values()})
        for each in found:
            is_group_of(each, [letter for letter in self.kept.values() if letter.group == each.group])

    @step(position=positions, entry=entries)
    async def record(self, position: str, entry: HistoryEntry) -> None:
        letter = self.kept.get(position)
        try:
            await self.letters().record(letter or a_letter(position=position), entry)
        except NotFound:
            assert letter is None
        else:
            assert letter is not None
            self.kept[position] = letter.with_entry(entry)

    @step(position=positions, entry=entries)
    async def settle_as_it_was_before(self, position: str, entry: HistoryEntry) -> None:
        """Somebody has handled it since this was read."""
        letter = self.kept.get(position)
        if letter is None or not letter.history:
            return
        before = replace(letter, entries=letter.entries - 1, history=letter.history[:-1], state="waiting")
        try:
            await self.letters().record(before, entry)
        except Conflict:
            await self._is_as_kept(position)
        else:
            raise AssertionError("it overwrote what somebody else did")

    @step()
    async def die(self) -> None:
        await self.letters.reopen()
        if not self.suite.survives:
            self.kept.clear()

    async def ends(self) -> None:
        """Every letter that was ever kept is there, with all that people did with it."""
        for position in POSITIONS:
            await self._is_as_kept(position)
        assert list(await self.letters().page(DeadLetterFilter(), 1000)) == [
            each.listed() for each in self._in_order()
        ]

    async def _is_as_kept(self, position: str) -> None:
        try:
            assert await self.letters().get(position) == self.kept.get(position)
        except NotFound:
            assert position not in self.kept

    def _in_order(self) -> list[DeadLetter]:
        return sorted(self.kept.values(), key=attrgetter("position"))


def seen_again(known: DeadLetter, letter: DeadLetter) -> DeadLetter:
    latest = replace(known, reason=letter.reason, code=letter.code, group=letter.group)
    if letter.last_seen <= known.last_seen:
        return latest
    return replace(latest, attempts=known.attempts + 1, last_seen=letter.last_seen)


def is_letter_wanted(letter: DeadLetter, wanted: DeadLetterFilter) -> bool:
    return (
        wanted.state in (None, letter.state)
        and wanted.group in (None, letter.group)
        and wanted.about in (None, letter.about)
        and wanted.message_id in (None, letter.message_id)
    )


def is_group_of(group: LetterGroup, letters: Sequence[DeadLetter]) -> None:
    assert group.reason in {each.reason for each in letters}
    states = [each.state for each in letters]
    assert asdict(group) == {
        "group": group.group,
        "waiting": states.count("waiting"),
        "replayed": states.count("replayed"),
        "discarded": states.count("discarded"),
        "reason": group.reason,
        "first_seen": min(each.first_seen for each in letters),
        "last_seen": max(each.last_seen for each in letters),
    }
