"""Where a charge is: what each context answers of its own side, put together."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct
from msgspec.structs import asdict

from clinic.domain.errors import Misconfigured, NotFound, Unavailable
from clinic.domain.tracing import Step, Trace

SKEW: Final = timedelta(seconds=2)
"""How far the clocks of two machines may be apart before their steps change places."""
IN_WHOLE_SECONDS: Final = ("started", "finished")

Unreadable = Misconfigured | Unavailable
Answer = Trace | Unreadable | None
WaitsFor = Literal["to be finished", "to be published", "to be received", "a person", "nothing", "unknown"]


class TracedStep(Step, frozen=True, kw_only=True):
    """A step, and the seconds since the one before it.

    They are whole, rounded down, if one of the two steps is in whole seconds.
    """

    waited_seconds: float | None = None


class Traced(Struct, frozen=True, kw_only=True):
    """The answer of `clinic trace --json`.

    `unreadable` names each context whose store cannot be read, and why.
    """

    appointment_id: UUID
    steps: list[TracedStep]
    waits_for: WaitsFor
    explanation: str
    unreadable: dict[str, str]


def joined(appointment_id: UUID, appointment: Answer, financial: Answer) -> Traced:
    """Both sides as one. Raises `NotFound` if neither knows it, `Unavailable` if neither can be read."""
    answers = {"appointment": appointment, "financial": financial}
    known = [answer for answer in answers.values() if isinstance(answer, Trace)]
    unreadable = {name: answer for name, answer in answers.items() if isinstance(answer, Unreadable)}
    if not known:
        for name, reason in unreadable.items():
            raise Unavailable(
                f"the {name} context cannot be read, and nothing else is known of {appointment_id}: {reason}"
            )
        raise NotFound(
            f"there is no appointment {appointment_id}, no charge of it and no dead letter about it"
        )
    waits_for, explanation = _waiting(appointment, financial)
    return Traced(
        appointment_id=appointment_id,
        steps=with_waits(_put_together([step for answer in known for step in answer.steps])),
        waits_for=waits_for,
        explanation=explanation,
        unreadable={name: str(reason) for name, reason in unreadable.items()},
    )


def _put_together(steps: Sequence[Step]) -> list[Step]:
    """In the order of the contexts, except for what was clearly earlier.

    An event can be republished after its charge was made.
    """
    together: list[Step] = []
    places = set[str | None]()
    for step in steps:
        if step.event == "published":
            if step.position in places:
                continue  # both contexts know of it
            places.add(step.position)
        later = (index for index, other in enumerate(together) if other.at > step.at + SKEW)
        together.insert(next(later, len(together)), step)
    return together


def with_waits(steps: Sequence[Step]) -> list[TracedStep]:
    """Each step with the wait before it."""
    return [
        TracedStep(**asdict(step), waited_seconds=_wait(before, step) if before else None)
        for before, step in zip([None, *steps], steps, strict=False)
    ]


def _wait(before: Step, step: Step) -> float:
    wait = max((step.at - before.at).total_seconds(), 0.0)  # clocks of two machines differ
    exact = not {before.event, step.event}.intersection(IN_WHOLE_SECONDS)
    return wait if exact else float(int(wait))


def _waiting(appointment: Answer, financial: Answer) -> tuple[WaitsFor, str]:
    if isinstance(financial, Trace) and financial.waits_for:
        is_finished = isinstance(appointment, Unreadable) or (
            appointment and appointment.waits_for != "to be finished"
        )
        return financial.waits_for, financial.explanation + (
            "" if is_finished else ", though no finished appointment is known by this id"
        )
    if isinstance(appointment, Trace) and appointment.waits_for:
        return appointment.waits_for, appointment.explanation
    for name, answer in (("appointment", appointment), ("financial", financial)):
        if isinstance(answer, Unreadable):
            return "unknown", f"the {name} context cannot be read"
    also = f"; {financial.explanation}" if isinstance(financial, Trace) else ""
    if appointment is None:
        return "unknown", f"no finished appointment is known by this id{also}"
    return (
        "to be received",
        f"is the financial service running? If so, `clinic audit --repair` publishes the event again{also}",
    )
