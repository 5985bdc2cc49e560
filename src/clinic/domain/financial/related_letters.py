"""Which dead letter keeps an appointment from its charge, and which are only about it."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from clinic.domain.events import event_id
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetterFilter, DeadLetters, LetterState

MAX_LETTERS: Final = 20
"""Dead letters about one appointment that are shown: of its own event, and of all."""


class RelatedLetters(Struct, frozen=True):
    """Dead letters about an appointment.

    `own` is a letter of its own event, known by the event's id: one that waits, or else one that was
    discarded. `unrelated` is a waiting letter of another producer; it keeps nothing from being published or
    charged.
    """

    own: DeadLetter | None = None
    unrelated: DeadLetter | None = None


async def related_letters(appointment_id: UUID, dead_letters: DeadLetters) -> RelatedLetters:
    """What may keep this appointment from its charge. Raises `Unavailable`."""
    own = await _own(appointment_id, dead_letters, "waiting") or await _own(
        appointment_id, dead_letters, "discarded"
    )
    waiting = await dead_letters.page(DeadLetterFilter("waiting", about=str(appointment_id)), MAX_LETTERS)
    return RelatedLetters(own, next((letter for letter in waiting if not is_own(letter)), None))


async def all_related(appointment_id: UUID, dead_letters: DeadLetters) -> Sequence[DeadLetter]:
    """Letters of its own event in every state, and others, by position. Raises `Unavailable`."""
    about = str(appointment_id)
    of_own_event = DeadLetterFilter(about=about, message_id=str(event_id(appointment_id)))
    own = await dead_letters.page(of_own_event, MAX_LETTERS)
    others = await dead_letters.page(DeadLetterFilter(about=about), MAX_LETTERS)
    positions = sorted({letter.position for letter in (*own, *others)})
    return [await _with_history(position, dead_letters) for position in positions]


def is_own(letter: DeadLetter) -> bool:
    """Whether it is of the event of the appointment that it is about."""
    try:
        return letter.message_id == str(event_id(UUID(letter.about)))
    except ValueError:
        return False


async def _own(appointment_id: UUID, dead_letters: DeadLetters, state: LetterState) -> DeadLetter | None:
    matching = DeadLetterFilter(state, about=str(appointment_id), message_id=str(event_id(appointment_id)))
    for letter in await dead_letters.page(matching, 1):
        return await _with_history(letter.position, dead_letters) if state == "discarded" else letter
    return None


async def _with_history(position: str, dead_letters: DeadLetters) -> DeadLetter:
    return replace(await dead_letters.get(position), value=None)


def next_step(letter: DeadLetter) -> str:
    """What a person should know about a letter that waits or was discarded, and can do."""
    replay = f"`clinic dead-letters replay {letter.position}`"
    if letter.state == "discarded":
        last = letter.history[-1]
        return f"its dead letter was discarded by {last.by}: {last.note}; {replay} charges it all the same"
    return f"dead-lettered: {letter.reason}; {replay} tries again"


def of_another(letter: DeadLetter) -> str:
    """What a person should know about a letter that mentions an appointment and is not of its own event."""
    return f"the dead letter at {letter.position} is about it, too, and is not of its own event"
