"""What a person does with dead letters: look at them, replay them once the cause is fixed, discard them."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from clinic.domain.errors import Conflict, NotFound, Refused, Unreadable
from clinic.domain.events import AppointmentFinished
from clinic.domain.financial.use_cases import Charged, ChargeOutcome
from clinic.domain.messaging.dead_letters import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetters,
    HistoryCursor,
    HistoryEntry,
    LetterGroup,
    RecordedEntry,
)
from clinic.domain.messaging.messages import Message, Origin, Received
from clinic.domain.messaging.ports import Clock, Telemetry

Headers = Sequence[tuple[str, bytes | None]]
Decode = Callable[[bytes | None, Headers, bytes | None], Message]
"""The message in a key, headers and a value."""
Read = Callable[[Message], AppointmentFinished | None]
ChargeBatch = Callable[[Sequence[Received[AppointmentFinished]]], Awaitable[Sequence[Charged]]]

PAGE_SIZE = 20
"""Letters in memory at once, one of them with its value."""


class DeadLetterSelection(Struct, frozen=True):
    """The letter at a position, in any state; or the waiting letters of a group; or else all that wait.

    Of several: at most `limit`, from behind the position `after`.
    """

    position: str | None = None
    group: str | None = None
    limit: int = sys.maxsize
    after: str = ""


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of a letter. `note` is the charge's total, the reason, or who handled it meanwhile."""

    position: str
    about: str
    outcome: ChargeOutcome | Literal["nothing to charge", "failed again", "discarded", "handled already"]
    note: str

    @property
    def sentence(self) -> str:
        if self.outcome in {"charged", "already charged"}:
            return f"{self.outcome} {self.note}"
        return f"{self.outcome}: {self.note}"


class _OfLetters:
    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters


class ListDeadLetters(_OfLetters):
    """Show the dead letters by position, a page at a time, without their values."""

    async def __call__(self, matching: DeadLetterFilter, limit: int, after: str = "") -> Sequence[DeadLetter]:
        return await self._letters.page(matching, limit, after)


class GroupDeadLetters(_OfLetters):
    """Show the groups of dead letters, those with the most waiting letters first."""

    async def __call__(self) -> Sequence[LetterGroup]:
        return sorted(await self._letters.groups(), key=lambda group: group.waiting, reverse=True)

    async def waiting(self, group: str | None) -> int:
        """How many letters wait, of this group or of all. Raises `Unavailable`."""
        return sum(counts.waiting for counts in await self() if group in (None, counts.group))


class FindDeadLetter(_OfLetters):
    """Show a dead letter. Raises `NotFound`."""

    async def __call__(self, position: str) -> DeadLetter:
        return await self._letters.get(position)


class ListHistory(_OfLetters):
    """Show what people did with dead letters, the newest first, a page at a time."""

    async def __call__(self, limit: int, after: HistoryCursor | None = None) -> Sequence[RecordedEntry]:
        return await self._letters.history(limit, after)


class ReplayDeadLetters:
    """Charge the appointments in dead letters as if they had just arrived; what fails again keeps waiting.

    Each outcome is returned after it was recorded with who did it. A dry run returns what would happen, and
    neither charges nor records. Raises `NotFound` for an unknown position or group; `Unavailable`: repeating
    is safe.
    """

    def __init__(
        self,
        letters: DeadLetters,
        decode: Decode,
        read: Read,
        charge: ChargeBatch,
        preview: ChargeBatch,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._letters = letters
        self._decode, self._read = decode, read
        self._charge, self._preview = charge, preview
        self._clock, self._telemetry = clock, telemetry

    async def __call__(
        self, selection: DeadLetterSelection, by: str, *, dry_run: bool = False
    ) -> AsyncIterator[Outcome]:
        _require(by, "who replays")
        async for letter in _letters(self._letters, selection):
            whole = replace(letter, value=(await self._letters.get(letter.position)).value)
            outcome = await self._attempt(whole, self._preview if dry_run else self._charge)
            yield outcome if dry_run else await self._recorded(letter, outcome, by)

    async def _attempt(self, letter: DeadLetter, charge: ChargeBatch) -> Outcome:
        try:
            received = self._received(letter)
            if received is None:
                return _outcome(letter, "nothing to charge", f"{letter.type or 'it'} is not for accounting")
            (charged,) = await charge([received])
        except Refused as reason:
            return _outcome(letter, "failed again", str(reason))
        return _outcome(letter, charged.outcome, str(charged.total))

    def _received(self, letter: DeadLetter) -> Received[AppointmentFinished] | None:
        if (kept := len(letter.value or b"")) < letter.length:
            raise _cut(f"{kept} of its {letter.length} bytes")
        if letter.cut:
            raise _cut("a part of its key and headers")
        event = self._read(self._decode(letter.key, letter.headers, letter.value))
        origin = Origin(
            position=letter.position,
            published_at=letter.published_at,
            received_at=letter.first_seen,
            attempts=letter.attempts + 1,
        )
        return None if event is None else Received(event, origin)

    async def _recorded(self, letter: DeadLetter, outcome: Outcome, by: str) -> Outcome:
        entry = HistoryEntry("replayed", by, self._clock(), outcome.sentence)
        if outcome.outcome == "failed again":
            entry = HistoryEntry("failed again", by, entry.at, outcome.note)
        if conflict := await _record(self._letters, self._telemetry, letter, entry):
            return _outcome(letter, "handled already", f"{conflict} meanwhile; here: {outcome.sentence}")
        return outcome


class DiscardDeadLetters:
    """Record that waiting dead letters are not to be charged, by whom and why. They are kept all the same.

    Each outcome is returned after it was recorded; a dry run records nothing. A letter that does not wait
    stays as it is. Raises `Unreadable` without a reason, `NotFound` for an unknown position or group, and
    `Unavailable`.
    """

    def __init__(self, letters: DeadLetters, clock: Clock, telemetry: Telemetry) -> None:
        self._letters, self._clock = letters, clock
        self._telemetry = telemetry

    async def __call__(
        self, selection: DeadLetterSelection, reason: str, by: str, *, dry_run: bool = False
    ) -> AsyncIterator[Outcome]:
        _require(by, "who discards")
        _require(reason, "why")
        async for letter in _letters(self._letters, selection):
            entry = HistoryEntry("discarded", by, self._clock(), reason)
            conflict = _handled_by(letter) if letter.state != "waiting" else None
            if conflict is None and not dry_run:
                conflict = await _record(self._letters, self._telemetry, letter, entry)
            yield _outcome(letter, "handled already" if conflict else "discarded", conflict or reason)


async def _letters(letters: DeadLetters, selection: DeadLetterSelection) -> AsyncIterator[DeadLetter]:
    if selection.position is not None:
        yield await letters.get(selection.position)
        return
    if selection.group is not None and not await letters.page(DeadLetterFilter(group=selection.group), 1):
        raise NotFound(f"there is no group {selection.group} of dead letters")
    matching = DeadLetterFilter("waiting", selection.group)
    after, left = selection.after, selection.limit
    while left and (page := await letters.page(matching, min(PAGE_SIZE, left), after)):
        for letter in page:
            yield letter
        after, left = page[-1].position, left - len(page)


async def _record(
    letters: DeadLetters, telemetry: Telemetry, letter: DeadLetter, entry: HistoryEntry
) -> str | None:
    """Record the entry. If somebody else changed the letter's state meanwhile, return who and how."""
    known = letter
    while known.state == letter.state:
        try:
            await letters.record(known, entry)
        except Conflict:
            known = await letters.get(letter.position)
        else:
            telemetry(entry.event, position=letter.position, by=entry.by, note=entry.note)
            return None
    return _handled_by(known)


def _handled_by(letter: DeadLetter) -> str:
    return f"{letter.state} by {letter.history[-1].by}"


def _outcome(letter: DeadLetter, outcome: str, note: str) -> Outcome:
    return Outcome(position=letter.position, about=letter.about, outcome=outcome, note=note)  # type: ignore[arg-type]


def _cut(kept: str) -> Unreadable:
    return Unreadable(f"only {kept} were kept: let its sender publish it anew", code="value-cut")


def _require(text: str, meaning: str) -> None:
    if not text.strip():
        raise Unreadable(f"say {meaning}")
