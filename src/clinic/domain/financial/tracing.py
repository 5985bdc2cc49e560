"""Where a charge is, as far as the financial context knows."""

from collections.abc import Sequence
from functools import partial
from operator import attrgetter
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
from clinic.domain.financial.use_cases import existing_charge
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetters
from clinic.domain.tracing import Step, Trace


class TraceCharge:
    """Show what arrived about an appointment and what became of it. Raises `NotFound` where nothing did."""

    def __init__(self, charges: Charges, dead_letters: DeadLetters) -> None:
        self._charges, self._dead_letters = charges, dead_letters

    async def __call__(self, appointment_id: UUID) -> Trace:
        letters = await all_related(appointment_id, self._dead_letters)
        about = await related_letters(appointment_id, self._dead_letters)
        charge = await existing_charge(appointment_id, self._charges)
        if charge is None and not letters:
            raise NotFound(f"nothing has arrived about appointment {appointment_id}")
        steps = [step for letter in letters for step in _of_letter(letter)]
        steps = sorted(steps + (_of_charge(charge) if charge else []), key=attrgetter("at"))
        return Trace(steps, "nothing", f"charged {charge.total}") if charge else _uncharged(steps, about)


def _uncharged(steps: Sequence[Step], about: RelatedLetters) -> Trace:
    if about.own:
        return Trace(steps, "a person" if about.own.state == "waiting" else "nothing", next_step(about.own))
    return Trace(
        steps, None, of_another(about.unrelated) if about.unrelated else "no dead letter about it waits"
    )


def _of_charge(charge: Charge) -> list[Step]:
    origin = charge.origin
    return [
        Step(event="published", at=origin.published_at, position=origin.position),
        Step(event="received", at=origin.received_at, position=origin.position, attempts=origin.attempts),
        Step(event="charged", at=charge.charged_at, total=charge.total, note=charge.pricing),
    ]


def _of_letter(letter: DeadLetter) -> list[Step]:
    step = partial(Step, position=letter.position)
    return [
        step(event="published", at=letter.published_at),
        step(event="dead-lettered", at=letter.first_seen, attempts=letter.attempts, note=letter.reason),
        *(
            step(event=entry.event, at=entry.at, by=entry.by, note=entry.note or None)
            for entry in letter.history
        ),
    ]
