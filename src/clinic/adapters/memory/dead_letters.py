"""Dead letters in memory, and beside them the entries of their histories."""

from collections import Counter
from collections.abc import Sequence

from msgspec.structs import asdict, replace

from clinic.domain.errors import Conflict, NotFound
from clinic.domain.messaging import dead_letters
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetterFilter, DeadLetters, HistoryEntry


class MemoryDeadLetters(DeadLetters):
    """What it holds dies with its process."""

    def __init__(self) -> None:
        self._stored: dict[str, DeadLetter] = {}
        self._history: dict[str, list[HistoryEntry]] = {}

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            known = self._stored.get(letter.position)
            self._stored[letter.position] = known.arrived_again(letter) if known else letter

    async def get(self, position: str) -> DeadLetter:
        if position not in self._stored:
            raise NotFound(f"there is no dead letter at {position}")
        history = self._history.get(position, ())[-dead_letters.MAX_HISTORY :]
        return replace(self._stored[position], history=tuple(history))

    async def page(self, matching: DeadLetterFilter, limit: int, after: str = "") -> Sequence[DeadLetter]:
        wanted = {name: value for name, value in asdict(matching).items() if value is not None}
        found = [
            letter
            for letter in self._stored.values()
            if letter.position > after and wanted.items() <= asdict(letter).items()
        ]
        return [letter.listed() for letter in sorted(found, key=lambda letter: letter.position)[:limit]]

    async def groups(self) -> Sequence[dead_letters.LetterGroup]:
        letters = self._stored.values()
        names = sorted({letter.group for letter in letters})
        return [_group(name, [letter for letter in letters if letter.group == name]) for name in names]

    async def record(self, letter: DeadLetter, entry: HistoryEntry) -> None:
        stored = await self.get(letter.position)
        if stored.entries != letter.entries:
            raise Conflict(f"the dead letter at {letter.position} was handled by somebody else")
        self._history.setdefault(letter.position, []).append(entry)
        self._stored[letter.position] = replace(stored.with_entry(entry), history=())

    async def history(
        self, limit: int, after: dead_letters.HistoryCursor | None = None
    ) -> Sequence[dead_letters.RecordedEntry]:
        found = {
            dead_letters.HistoryCursor(entry.at, position, number): entry
            for position, entries in self._history.items()
            for number, entry in enumerate(entries)
        }
        cursors = sorted((each for each in found if after is None or each < after), reverse=True)
        return [(cursor, found[cursor]) for cursor in cursors[:limit]]


def _group(name: str, letters: Sequence[DeadLetter]) -> dead_letters.LetterGroup:
    states = Counter(letter.state for letter in letters)
    return dead_letters.LetterGroup(
        group=name,
        **{state: states[state] for state in ("waiting", "replayed", "discarded")},
        reason=min(letter.reason for letter in letters),
        first_seen=min(letter.first_seen for letter in letters),
        last_seen=max(letter.last_seen for letter in letters),
    )
