"""What a person does with dead letters: look at them, replay them once their cause is mended, or discard them
with a reason.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from clinic.domain.errors import Conflict, NotFound, Refused, Unreadable
from clinic.domain.events import AppointmentFinished
from clinic.domain.financial.use_cases import Charged
from clinic.domain.messaging.dead_letters import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetters,
    HistoryEntry,
    LetterGroup,
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
    """The letter at a position, whatever its state; or those of a group that wait; or, with neither, all that
    wait.

    Of several: at most `limit`, those behind the position `after`.
    """

    position: str | None = None
    group: str | None = None
    limit: int | None = None
    after: str = ""


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of a letter. `note`: the total of the charge, the reason, or who has handled it
    meanwhile.
    """

    position: str
    about: str
    outcome: Literal[
        "charged",
        "already charged",
        "differs from its charge",
        "nothing to charge",
        "failed again",
        "discarded",
        "handled already",
    ]
    note: str

    @property
    def sentence(self) -> str:
        if self.outcome in {"charged", "already charged"}:
            return f"{self.outcome} {self.note}"
        return f"{self.outcome}: {self.note}"


class ListDeadLetters:
    """Show the dead letters by position, a page at a time, without their values."""

    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    async def __call__(self, matching: DeadLetterFilter, limit: int, after: str = "") -> Sequence[DeadLetter]:
        return await self._letters.page(matching, limit, after)


class GroupDeadLetters:
    """Show the groups of dead letters: those first of which the most wait."""

    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    async def __call__(self) -> Sequence[LetterGroup]:
        return sorted(await self._letters.groups(), key=lambda each: each.waiting, reverse=True)

    async def waiting(self, group: str | None) -> int:
        """How many wait: of this group, or of all. Raises `Unavailable`."""
        return sum(each.waiting for each in await self._letters.groups() if group in (None, each.group))


class FindDeadLetter:
    """Show a dead letter. Raises `NotFound`."""

    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    async def __call__(self, position: str) -> DeadLetter:
        return await self._letters.get(position)


class ReplayDeadLetters:
    """Charge what dead letters tell, as if they had just arrived, and note who did so; what fails again waits
    on.

    Each outcome comes once it is noted. A dry run tells what would come of it, and neither charges nor notes
    anything.
    Raises `NotFound` for a position or group that there is not; `Unavailable`: then repeating is safe.
    """

    def __init__(
        self,
        letters: DeadLetters,
        open_: Decode,
        read: Read,
        charge: ChargeBatch,
        preview: ChargeBatch,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._letters, self._open, self._read, self._charge, self._foresee = (
            letters,
            open_,
            read,
            charge,
            preview,
        )
        self._clock, self._notices = clock, telemetry

    async def __call__(
        self, chosen: DeadLetterSelection, by: str, *, dry_run: bool = False
    ) -> AsyncIterator[Outcome]:
        _require(by, "who replays")
        async for letter in _letters(self._letters, chosen):
            whole = replace(letter, value=(await self._letters.get(letter.position)).value)
            outcome = await self._attempt(whole, self._foresee if dry_run else self._charge)
            yield outcome if dry_run else await self._note(letter, outcome, by)

    async def _attempt(self, letter: DeadLetter, charging: ChargeBatch) -> Outcome:
        try:
            received = self._received(letter)
            if received is None:
                return _outcome(letter, "nothing to charge", f"{letter.type or 'it'} is not for accounting")
            (charged,) = await charging([received])
        except Refused as reason:
            return _outcome(letter, "failed again", str(reason))
        return _outcome(letter, charged.outcome, str(charged.total))

    def _received(self, letter: DeadLetter) -> Received[AppointmentFinished] | None:
        kept = len(letter.value or b"")
        if kept < letter.length:
            raise Unreadable(
                f"only {kept} of its {letter.length} bytes were kept: let its sender publish it anew"
            )
        event = self._read(self._open(letter.key, letter.headers, letter.value))
        origin = Origin(
            position=letter.position,
            published_at=letter.published_at,
            received_at=letter.first_seen,
            attempts=letter.attempts + 1,
        )
        return None if event is None else Received(event, origin)

    async def _note(self, letter: DeadLetter, outcome: Outcome, by: str) -> Outcome:
        failed = outcome.outcome == "failed again"
        entry = (
            HistoryEntry("failed again", by, self._clock(), outcome.note)
            if failed
            else HistoryEntry("replayed", by, self._clock(), outcome.sentence)
        )
        if conflict := await _record(self._letters, self._notices, letter, entry):
            return _outcome(letter, "handled already", f"{conflict} meanwhile; here: {outcome.sentence}")
        return outcome


class DiscardDeadLetters:
    """Note that waiting dead letters are not to be charged, who says so and why. They are kept all the same.

    Each outcome comes once it is noted; a dry run notes nothing. One that does not wait stays as it is.
    Raises `Unreadable` without a reason, `NotFound` for a position or group that there is not, and
    `Unavailable`.
    """

    def __init__(self, letters: DeadLetters, clock: Clock, telemetry: Telemetry) -> None:
        self._letters, self._clock, self._notices = letters, clock, telemetry

    async def __call__(
        self, chosen: DeadLetterSelection, reason: str, by: str, *, dry_run: bool = False
    ) -> AsyncIterator[Outcome]:
        _require(by, "who discards")
        _require(reason, "why")
        async for letter in _letters(self._letters, chosen):
            entry = HistoryEntry("discarded", by, self._clock(), reason)
            stands = _as_handled(letter) if letter.state != "waiting" else None
            if stands is None and not dry_run:
                stands = await _record(self._letters, self._notices, letter, entry)
            yield (
                _outcome(letter, "discarded", reason)
                if stands is None
                else _outcome(letter, "handled already", stands)
            )


async def _letters(letters: DeadLetters, chosen: DeadLetterSelection) -> AsyncIterator[DeadLetter]:
    if chosen.position is not None:
        yield await letters.get(chosen.position)
        return
    if chosen.group is not None and not await letters.page(DeadLetterFilter(group=chosen.group), 1):
        raise NotFound(f"there is no group {chosen.group} of dead letters")
    matching, after, left = DeadLetterFilter("waiting", chosen.group), chosen.after, chosen.limit
    while page := await letters.page(matching, PAGE_SIZE if left is None else min(PAGE_SIZE, left), after):
        for letter in page:
            yield letter
        after, left = page[-1].position, None if left is None else left - len(page)
        if left == 0:
            return


async def _record(
    letters: DeadLetters, telemetry: Telemetry, letter: DeadLetter, entry: HistoryEntry
) -> str | None:
    """Note the handling; where somebody else has changed the letter's state meanwhile, do not, and tell who
    did what.
    """
    known = letter
    while known.state == letter.state:
        try:
            await letters.record(known, entry)
        except Conflict:
            known = await letters.get(letter.position)
        else:
            telemetry(entry.event, position=letter.position, by=entry.by, note=entry.note)
            return None
    return _as_handled(known)


def _as_handled(letter: DeadLetter) -> str:
    return f"{letter.state} by {letter.history[-1].by}"


def _outcome(letter: DeadLetter, outcome: str, note: str) -> Outcome:
    return Outcome(position=letter.position, about=letter.about, outcome=outcome, note=note)  # type: ignore[arg-type]


def _require(text: str, outcome: str) -> None:
    if not text.strip():
        raise Unreadable(f"say {outcome}")
