"""What an audit finds, each in a sentence for a person."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from clinic.domain.errors import Unreadable
from clinic.domain.events import AppointmentFinished
from clinic.domain.financial.model import Charge
from clinic.domain.financial.pricing import POLICIES, Pricing
from clinic.domain.financial.related_letters import RelatedLetters, next_step, of_another
from clinic.domain.messaging.messages import PublicationStatus, Received
from clinic.domain.money import Money
from clinic.domain.tracing import shown


class Finding(Struct, frozen=True, kw_only=True):
    """What is not as it should be about one appointment.

    `missing`: finished and not charged. `orphaned`: charged and not finished. `wrong`: not what its own
    policy makes of the appointment. `remedy` is what mends it: the event republished, a dead letter replayed,
    the publication that it waits for, or a person. `expected` is None if no amount is, `found` if there is no
    charge.
    """

    kind: Literal["missing", "orphaned", "wrong"]
    appointment_id: UUID
    expected: Money | None = None
    found: Money | None = None
    remedy: Literal["republish", "replay", "publication", "a person"] = "a person"
    explanation: str


def missing(
    event: AppointmentFinished, status: PublicationStatus | None, letters: RelatedLetters, pricing: Pricing
) -> Finding:
    """It is finished and not charged, perhaps because of `letters.own`. `pricing` is today's policy."""
    remedy: Literal["republish", "replay", "publication"]
    if letters.own:
        remedy, explanation = "replay", next_step(letters.own)
    elif status is None:
        remedy, explanation = "republish", f"finished {shown(event.end)}, and its event was never saved"
    elif status.published_at is None:
        since = f"has waited since {shown(status.saved_at)} to be published"
        remedy, explanation = "publication", f"its event {since}: is the appointment service running?"
    else:
        published = f"published {shown(status.published_at)} at {status.position}"
        remedy, explanation = "republish", f"finished {shown(event.end)}, {published}, and not charged"
    if letters.unrelated and not letters.own:
        explanation += f"; {of_another(letters.unrelated)}"
    return Finding(
        kind="missing",
        appointment_id=event.appointment_id,
        expected=_total(pricing, event),
        remedy=remedy,
        explanation=explanation,
    )


def orphaned(charge: Charge) -> Finding:
    """It is charged and not finished."""
    return Finding(
        kind="orphaned",
        appointment_id=charge.appointment_id,
        found=charge.total,
        explanation=f"charged {shown(charge.charged_at)}, and no finished appointment is known by this id",
    )


def wrong(event: AppointmentFinished, charge: Charge) -> Finding | None:
    """The charge is not what its own policy makes of this appointment; None if it is."""
    explanation = _difference(event, charge)
    if explanation is None:
        return None
    policy = POLICIES.get(charge.pricing)
    return Finding(
        kind="wrong",
        appointment_id=event.appointment_id,
        expected=_total(policy, event) if policy else None,
        found=charge.total,
        explanation=explanation,
    )


def _difference(event: AppointmentFinished, charge: Charge) -> str | None:
    policy = POLICIES.get(charge.pricing)
    if policy is None:
        return f"its policy {charge.pricing!r} is none of {', '.join(POLICIES)}"
    try:
        due = Charge.for_finished(Received(event, charge.origin), policy, charge.charged_at)
    except Unreadable as error:
        return f"{policy.name} cannot charge this appointment: {error}"
    if due == charge:
        return None
    names = [name for name in Charge.__struct_fields__ if getattr(due, name) != getattr(charge, name)]
    said = [f"{name} {_said(getattr(charge, name))} instead of {_said(getattr(due, name))}" for name in names]
    return f"the charge says {', '.join(said)}"


def _total(policy: Pricing, event: AppointmentFinished) -> Money | None:
    try:
        return policy.total(event.price, event.end - event.start)
    except Unreadable:
        return None


def _said(value: object) -> str:
    return shown(value) if isinstance(value, datetime) else str(value)
