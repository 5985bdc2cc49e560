"""What foreign producers and repetitions put on the topic: unreadable messages, old events again, and events
that contradict their charge.
"""

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

import msgspec
from msgspec.structs import replace
from support.ledger import History, Json

from campaign.failpoints import Control, put
from clinic.domain.events import FINISHED, AppointmentFinished, to_message
from clinic.domain.messaging.messages import Message
from clinic.domain.money import Money

TOO_MUCH = "is not a valid amount"
FOREIGN = "foreign-"
"""How the ids of what must become a dead letter begin."""


class Letter(NamedTuple):
    """What is kept of a message that no retry can save."""

    message_id: str
    length: int
    sha256: str
    reason: str


class ForeignMessage(NamedTuple):
    """What must become a dead letter: once for each time that it may have been published."""

    message_id: str
    reason: str
    """A part of what must be said of it."""
    data: bytes
    tries: int

    def is_kept(self, letters: Sequence[Letter]) -> bool:
        """Whether that is so, word for word."""
        own = [each for each in letters if each.message_id == self.message_id]
        alike = [
            each
            for each in own
            if (each.length, each.sha256) == (len(self.data), sha256(self.data).hexdigest())
        ]
        return 1 <= len(own) <= self.tries and own == [each for each in alike if self.reason in each.reason]


def _tries(path: Path) -> int:
    return path.stat().st_size


class ForeignMessages:
    """Has the services publish messages that are not theirs, between two of their own batches."""

    def __init__(self, control: Control, history: History, rng: random.Random) -> None:
        self._control = control
        self._history = history
        self._rng = rng
        self._numbers = count(1)
        self._reasons: dict[str, str] = {}
        self.contradicted: set[str] = set()

    def send(self, kind: str) -> str | None:
        """The name of what was posted; None where there is nothing to republish as yet."""
        messages = {"garbage": self._garbage, "again": self._again, "otherwise": self._otherwise}[kind]()
        if not messages:
            return None
        name = f"{next(self._numbers):06}"
        put(self._control.folder / "post" / name, msgspec.json.encode(messages))
        return name

    def is_sent(self, name: str) -> bool:
        return (self._control.folder / "sent" / name).exists()

    def sent(self) -> list[ForeignMessage]:
        """All that was published and cannot become a charge."""
        return [
            ForeignMessage(
                message.id,
                self._reasons[message.id],
                message.data or b"",
                _tries(self._control.folder / "tries" / path.name),
            )
            for path in (self._control.folder / "sent").iterdir()
            for message in msgspec.json.decode(path.read_bytes(), type=list[Message])
            if message.id in self._reasons
        ]

    def _garbage(self) -> Sequence[Message]:
        """What cannot be read, and what can be read but not charged, under keys that others wait for, among
        valid events.
        """
        wrong = dict(self._rng.sample(list(self._unreadable()), 2)) | {TOO_MUCH: self._beyond_all_money()}
        foreign = [(reason, replace(each, id=f"{FOREIGN}{uuid4()}")) for reason, each in wrong.items()]
        self._reasons |= {each.id: reason for reason, each in foreign}
        messages = [each for _, each in foreign] + list(self._again())
        self._rng.shuffle(messages)
        return messages

    def _beyond_all_money(self) -> Message:
        """Each of its parts is possible; what it comes to is not."""
        start = datetime.fromisoformat("2020-01-01T13:00:00+00:00")
        return to_message(_event(str(uuid4()), start, 50 * 3600, Money("9999999999999.99")))

    def _unreadable(self) -> Iterator[tuple[str, Message]]:
        known = list(self._history.started) or [str(uuid4())]
        event = to_message(
            _event(
                self._rng.choice(known),
                datetime.fromisoformat("2020-01-01T13:00:00+00:00"),
                60,
                Money("1.00"),
            )
        )
        data = event.data or b""
        yield "truncated", replace(event, data=data[: len(data) // 2])
        yield "malformed", replace(event, data=b"\xff\xfe\x00")
        yield "got `null`", replace(event, data=b"null")
        yield "a version that is not known here", replace(event, type=f"{FINISHED}.v99")
        yield "'-1.00' is not a valid amount", replace(event, data=data.replace(b"1.00", b"-1.00"))

    def _again(self) -> Sequence[Message]:
        """Events of long ago and of just now, in no order."""
        finished = list(self._history.finished.values())
        chosen = self._rng.sample(finished, min(5, len(finished))) + finished[-3:]
        self._rng.shuffle(chosen)
        return [self._at_times_anew(to_message(_event_of(each))) for each in chosen]

    def _otherwise(self) -> Sequence[Message]:
        """Appointments that have a charge, at another price and with another end."""
        seen = [self._history.finished[each] for each in self._history.seen if each in self._history.finished]
        chosen = [_event_of(each) for each in self._rng.sample(seen, min(3, len(seen)))]
        self.contradicted |= {str(each.appointment_id) for each in chosen}
        return [
            self._at_times_anew(
                to_message(replace(each, price=Money("1.23"), end=each.end + timedelta(hours=5)))
            )
            for each in chosen
        ]

    def _at_times_anew(self, event: Message) -> Message:
        """Under an event id that nobody knows, for an event that is known by its appointment."""
        return replace(event, id=str(uuid4())) if self._rng.random() < 0.5 else event


def _event_of(appointment: Json) -> AppointmentFinished:
    """The event that the service publishes for it."""
    start, end = (datetime.fromisoformat(f"{appointment[name]}+00:00") for name in ("start_date", "end_date"))
    event = _event(
        appointment["id"], start, (end - start).total_seconds(), Money(Decimal(appointment["price"]))
    )
    return replace(
        event, physician_id=UUID(appointment["physician_id"]), patient_id=UUID(appointment["patient_id"])
    )


def _event(appointment_id: str, start: datetime, seconds: float, price: Money) -> AppointmentFinished:
    return AppointmentFinished(
        appointment_id=UUID(appointment_id),
        physician_id=uuid4(),
        patient_id=uuid4(),
        price=price,
        start=start,
        end=start + timedelta(seconds=seconds),
    )
