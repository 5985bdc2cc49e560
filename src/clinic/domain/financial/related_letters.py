"""Which dead letter stands between an appointment and its charge, and which only speak of it."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from msgspec import Struct

from clinic.domain.events import event_ids
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetterFilter, DeadLetters, LetterState

MAX_LETTERS: Final = 20
"""How many dead letters about one appointment are shown of its own news, and as many of all."""


class RelatedLetters(Struct, frozen=True):
    """Dead letters about an appointment.

    `own`: its own news, in whatever version, known by the event's id, which follows from the appointment's id
    and the event's
    type; one that waits, or else one that was discarded. `strange`: one of somebody else that waits; it keeps
    nothing from
    being told or charged.
    """

    own: DeadLetter | None = None
    strange: DeadLetter | None = None


async def related_letters(appointment_id: UUID, dead_letters: DeadLetters) -> RelatedLetters:
    """What may stand between this appointment and its charge. Raises `Unavailable`."""
    own = await _own(appointment_id, dead_letters, "waiting") or await _own(
        appointment_id, dead_letters, "discarded"
    )
    waiting = await dead_letters.page(DeadLetterFilter("waiting", about=str(appointment_id)), MAX_LETTERS)
    ids = event_ids(appointment_id)
    return RelatedLetters(own, next((each for each in waiting if each.message_id not in ids), None))


async def all_related(appointment_id: UUID, dead_letters: DeadLetters) -> Sequence[DeadLetter]:
    """Its own letters in every state, and others, in the order of their positions. Raises `Unavailable`."""
    about = str(appointment_id)
    own = await dead_letters.page(
        DeadLetterFilter(about=about, message_ids=event_ids(appointment_id)), MAX_LETTERS
    )
    others = await dead_letters.page(DeadLetterFilter(about=about), MAX_LETTERS)
    return sorted({each.position: each for each in (*own, *others)}.values(), key=lambda each: each.position)


async def _own(appointment_id: UUID, dead_letters: DeadLetters, state: LetterState) -> DeadLetter | None:
    matching = DeadLetterFilter(state, about=str(appointment_id), message_ids=event_ids(appointment_id))
    return next(iter(await dead_letters.page(matching, 1)), None)


def set_aside(letter: DeadLetter) -> str:
    """What a person should know of a letter that waits or was discarded, and can do about it."""
    replay = f"`clinic dead-letters replay {letter.position}`"
    if letter.state == "discarded":
        last = letter.history[-1]
        return f"its dead letter was discarded by {last.by}: {last.note}; {replay} charges it all the same"
    return f"dead-lettered: {letter.reason}; {replay} tries again"


def of_another(letter: DeadLetter) -> str:
    """What a person should know of a letter that is about an appointment and not its own news."""
    return f"the dead letter at {letter.position} is about it, too, and is not its own news"
