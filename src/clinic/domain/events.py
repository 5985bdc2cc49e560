"""The published language: the events that one context sends another, written as messages and read back."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Final, TypeVar
from uuid import UUID, uuid5

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import asdict

from clinic.domain.errors import Unreadable
from clinic.domain.messaging.messages import Message
from clinic.domain.money import Money
from clinic.domain.times import cut

T = TypeVar("T")
U = TypeVar("U")

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
        """The same whenever the event is republished: see `event_id`."""
        return event_id(self.appointment_id)


def event_id(appointment_id: UUID) -> UUID:
    """The id of an appointment's own event: UUIDv5 (RFC 9562) of the appointment's id and the event's type.

    A message about an appointment with another id comes from another producer. A newer version of the event
    keeps this id: it is the same event in another form, and older code must know its dead letters.
    """
    return uuid5(appointment_id, FINISHED_V1)


class FinishedDataV1(Struct, kw_only=True):
    """The data as it travels: the price as a string, RFC 3339 times. Unknown fields are ignored.

    Price and times are read by `_amount` and `_moment`: msgspec alone takes 2_00.00 and rounds times up.
    """

    appointment_id: UUID
    physician_id: UUID
    patient_id: UUID
    price: msgspec.Raw
    start: str
    end: str


_Aware = Annotated[datetime, Meta(tz=True)]
_decoder = msgspec.json.Decoder(FinishedDataV1)
_strings = msgspec.json.Decoder(str)
_decimals = msgspec.json.Decoder(Decimal)
_encoder = msgspec.json.Encoder()


def to_message(event: AppointmentFinished) -> Message:
    """The event as a message: the same bytes whenever it is republished."""
    subject = str(event.appointment_id)
    data = asdict(event) | {"price": str(event.price)}
    return Message(
        id=str(event.id),
        type=FINISHED_V1,
        source=SOURCE,
        subject=subject,
        time=event.end,
        key=subject,
        data=_encoder.encode(data),
    )


def from_message(message: Message) -> AppointmentFinished | None:
    """The event in a message; None for another type of event and for a message without a value (a tombstone).

    Raises `Unreadable`, also for an unknown version of this event: to ignore it would lose a charge.
    """
    if message.data is None:
        return None
    if not message.type:
        raise Unreadable("the message names no event type", code="type-missing")
    if message.type != FINISHED_V1:
        if message.type == FINISHED or message.type.startswith(FINISHED + "."):
            sentence = f"{message.type[:100]!r} is a version that is not known here: {FINISHED_V1} is"
            raise Unreadable(sentence, code="type-unknown")
        return None
    return _event(_read("", _decoder.decode, message.data))


def _read(field: str, read: Callable[[T], U], written: T) -> U:
    """The data, or a field of it, as `read` reads it. Raises `Unreadable`."""
    try:
        return read(written)
    except Unreadable as error:
        raise Unreadable(f"{error} - at `$.{field}`", code=f"{error.code}:$.{field}") from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        problem = f"{error} - at `$.{field}`" if field else str(error)
        sentence = f"{FINISHED_V1} with data that cannot be read: {problem}"
        raise Unreadable(sentence, code=_code(problem)) from error


def _code(problem: str) -> str:
    """What is wrong with the data, and msgspec's JSON path to it: only of this event's own fields."""
    for name in FinishedDataV1.__struct_fields__:
        if f"`{name}`" in problem:
            return f"data-incomplete:$.{name}"
        if f"`$.{name}`" in problem:
            return f"data-unreadable:$.{name}"
    return "data-unreadable:$"


def _event(data: FinishedDataV1) -> AppointmentFinished:
    start, end = _read("start", _moment, cut(data.start)), _read("end", _moment, cut(data.end))
    if end < start:
        raise Unreadable(f"the appointment ends ({end}) before it starts ({start})", code="ends-before-start")
    return AppointmentFinished(
        appointment_id=data.appointment_id,
        physician_id=data.physician_id,
        patient_id=data.patient_id,
        price=_read("price", _amount, bytes(data.price)),
        start=start,
        end=end,
    )


@lru_cache(maxsize=4096)  # a clinic's prices are few, and events of one moment come together
def _amount(written: bytes) -> Money:
    """A string or a number of JSON, as an accountant would type it."""
    try:
        return Money(_strings.decode(written) if written[:1] == b'"' else written.decode())
    except Unreadable:
        _decimals.decode(written)  # says what is wrong with what is no number at all
        raise


@lru_cache(maxsize=4096)
def _moment(text: str) -> datetime:
    """In whole seconds, cut, so that nobody pays for a second that has not begun."""
    moment = msgspec.convert(text, _Aware)
    try:
        return moment.astimezone(UTC).replace(microsecond=0)
    except OverflowError as error:
        raise Unreadable(f"{moment} is not a date in UTC", code="date-invalid") from error
