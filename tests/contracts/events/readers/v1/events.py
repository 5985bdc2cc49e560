"""The published language: what one context tells another, sealed into a message and read back."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Final
from uuid import UUID, uuid5

import msgspec
from msgspec import Meta, Struct

from contracts.events.readers.v1.errors import Unreadable
from contracts.events.readers.v1.messages import Message
from contracts.events.readers.v1.money import Money

SOURCE: Final = "clinic/appointment"
FINISHED: Final = "clinic.appointment.finished"
FINISHED_V1: Final = FINISHED + ".v1"


class AppointmentFinished(Struct, frozen=True, kw_only=True):
    """An appointment is over. Ids only, nothing personal; start and end are aware UTC in whole seconds."""

    appointment_id: UUID
    physician_id: UUID
    patient_id: UUID
    price: Money
    start: datetime
    end: datetime

    @property
    def id(self) -> UUID:
        """The same whenever the fact is told again: UUIDv5 (RFC 9562) of the appointment's id and the event's type."""
        return uuid5(self.appointment_id, FINISHED_V1)


class _FinishedV1(Struct, kw_only=True):
    """The data as it travels: a money string with two decimals, RFC 3339 times. Fields it does not know are ignored."""

    appointment_id: UUID
    physician_id: UUID
    patient_id: UUID
    price: Decimal
    start: Annotated[datetime, Meta(tz=True)]
    end: Annotated[datetime, Meta(tz=True)]


_decoder = msgspec.json.Decoder(_FinishedV1)
_encoder = msgspec.json.Encoder()


def seal(fact: AppointmentFinished) -> Message:
    """The fact as a message: the same bytes whenever it is told again."""
    data = {
        "appointment_id": fact.appointment_id,
        "physician_id": fact.physician_id,
        "patient_id": fact.patient_id,
        "price": str(fact.price),
        "start": fact.start,
        "end": fact.end,
    }
    return Message(
        id=str(fact.id),
        type=FINISHED_V1,
        source=SOURCE,
        subject=str(fact.appointment_id),
        time=fact.end,
        key=str(fact.appointment_id),
        data=_encoder.encode(data),
    )


def read(message: Message) -> AppointmentFinished | None:
    """The fact in a message; None for another type of event and for an empty message.

    Raises `Unreadable`, also for a version of this event that is not known here: ignoring it would lose a charge.
    """
    if not message.data:
        return None
    if not message.type:
        raise Unreadable("the message names no event type")
    if message.type != FINISHED_V1:
        if message.type == FINISHED or message.type.startswith(FINISHED + "."):
            raise Unreadable(f"{message.type[:100]} is a version that is not known here: {FINISHED_V1} is")
        return None
    try:
        data = _decoder.decode(message.data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Unreadable(f"{FINISHED_V1} with data that cannot be read: {error}") from error
    return _fact(data)


def _fact(data: _FinishedV1) -> AppointmentFinished:
    start, end = _whole_seconds(data.start), _whole_seconds(data.end)
    if end < start:
        raise Unreadable(f"the appointment ends ({end}) before it starts ({start})")
    return AppointmentFinished(
        appointment_id=data.appointment_id,
        physician_id=data.physician_id,
        patient_id=data.patient_id,
        price=Money(data.price),
        start=start,
        end=end,
    )


def _whole_seconds(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC).replace(microsecond=0)
    except OverflowError as error:
        raise Unreadable(f"{moment} is no date in UTC") from error
