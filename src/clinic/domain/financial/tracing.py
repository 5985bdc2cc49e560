"""Where a charge is, as far as the financial context knows."""

from collections.abc import Sequence
from uuid import UUID

from clinic.domain.errors import NotFound
from clinic.domain.financial.model import Charge
from clinic.domain.financial.ports import Charges
from clinic.domain.financial.related_letters import (
    RelatedLetters,
    all_related,
    next_step,
    of_another,
    related_letters,
)
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetters
from clinic.domain.tracing import Step, Trace


class TraceCharge:
    """Show what arrived about an appointment and what became of it. Raises `NotFound` where nothing did."""

    def __init__(self, charges: Charges, dead_letters: DeadLetters) -> None:
        self._charges, self._dead_letters = charges, dead_letters

    async def __call__(self, appointment_id: UUID) -> Trace:
        letters = await all_related(appointment_id, self._dead_letters)
        about = await related_letters(appointment_id, self._dead_letters)
        steps = [step for letter in letters for step in _of_letter(letter)]
        try:
            charge = await self._charges.get(appointment_id)
        except NotFound:
            if not letters:
                raise
            return _uncharged(_in_order(steps), about)
        steps += _of_charge(charge)
        return Trace(_in_order(steps), "nothing", f"charged {charge.total}")


def _uncharged(steps: Sequence[Step], about: RelatedLetters) -> Trace:
    if about.own:
        return Trace(steps, "a person" if about.own.state == "waiting" else "nothing", next_step(about.own))
    return Trace(
        steps, None, of_another(about.unrelated) if about.unrelated else "no dead letter about it waits"
    )


def _in_order(steps: Sequence[Step]) -> Sequence[Step]:
    return sorted(steps, key=lambda step: step.at)


def _of_charge(charge: Charge) -> list[Step]:
    origin = charge.origin
    return [
        Step(event="published", at=origin.published_at, position=origin.position),
        Step(event="received", at=origin.received_at, position=origin.position, attempts=origin.attempts),
        Step(event="charged", at=charge.charged_at, total=charge.total, note=charge.pricing),
    ]


def _of_letter(letter: DeadLetter) -> list[Step]:
    return [
        Step(event="published", at=letter.published_at, position=letter.position),
        Step(
            event="dead-lettered",
            at=letter.first_seen,
            attempts=letter.attempts,
            position=letter.position,
            note=letter.reason,
        ),
        *(
            Step(
                event=entry.event, at=entry.at, by=entry.by, position=letter.position, note=entry.note or None
            )
            for entry in letter.history
        ),
    ]
