"""What is known of an appointment's way to its charge. Times are aware UTC."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from msgspec import Struct

from clinic.domain.money import Money


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened on the way from an appointment to its charge.

    `at` is in whole seconds for `started` and `finished`, else in milliseconds. `position` is where the
    transport keeps the event.
    """

    event: Literal[
        "started",
        "finished",
        "saved",
        "published",
        "received",
        "charged",
        "dead-lettered",
        "replayed",
        "failed again",
        "discarded",
    ]
    at: datetime
    position: str | None = None
    attempts: int | None = None
    total: Money | None = None
    by: str | None = None
    note: str | None = None


class Trace(Struct, frozen=True):
    """What one context knows of the way to a charge: its steps, what it waits for, and an explanation.

    `waits_for` is None if it does not wait in this context, and is not at its end either.
    """

    steps: Sequence[Step]
    waits_for: Literal["to be finished", "to be published", "a person", "nothing"] | None
    explanation: str


def shown(moment: datetime) -> str:
    """A moment as it is printed: UTC, to the second."""
    return moment.isoformat(" ", "seconds")[:19]
