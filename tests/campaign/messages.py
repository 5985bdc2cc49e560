"""What strangers and repetitions put on the topic: things that nobody can read, old facts again, and facts that contradict."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from uuid import UUID, uuid4

import msgspec
from ledger import History, Json
from msgspec.structs import replace

from campaign.points import Control, put
from clinic.domain.events import FINISHED, AppointmentFinished, seal
from clinic.domain.messaging import Message
from clinic.domain.money import Money

STRANGER = "stranger-"
"""How the ids of what must become a dead letter begin."""


class Post:
    """Has messages published by the services themselves, between two batches of theirs."""

    def __init__(self, control: Control, history: History, dice: random.Random) -> None:
        self._control, self._history, self._dice = control, history, dice
        self._numbers = count(1)

    def send(self, what: str) -> str | None:
        """The name of what was posted; None where there is nothing to tell again as yet."""
        messages = {"garbage": self._garbage, "again": self._again, "otherwise": self._otherwise}[what]()
        if not messages:
            return None
        name = f"{next(self._numbers):06}"
        put(self._control.folder / "post" / name, msgspec.json.encode(messages))
        return name

    def is_sent(self, name: str) -> bool:
        return (self._control.folder / "sent" / name).exists()

    def strangers_sent(self) -> set[str]:
        """The ids of all that was published and cannot be read."""
        sent = [msgspec.json.decode(path.read_bytes(), type=list[Message]) for path in (self._control.folder / "sent").iterdir()]
        return {message.id for messages in sent for message in messages if message.id.startswith(STRANGER)}

    def _garbage(self) -> Sequence[Message]:
        """Unreadable, each in its own way, under the keys of appointments that others wait for."""
        known = list(self._history.started) or [str(uuid4())]
        fact = seal(_fact(self._dice.choice(known), datetime.fromisoformat("2020-01-01T13:00:00+00:00"), 60, Money("1.00")))
        data = fact.data or b""
        wrong = [
            replace(fact, data=data[: len(data) // 2]),
            replace(fact, data=b"\xff\xfe\x00"),
            replace(fact, data=b"null"),
            replace(fact, type=f"{FINISHED}.v99"),
            replace(fact, data=data.replace(b"1.00", b"-1.00")),
        ]
        return [replace(each, id=f"{STRANGER}{uuid4()}") for each in self._dice.sample(wrong, 2)]

    def _again(self) -> Sequence[Message]:
        """Facts of long ago and of just now, in no order."""
        finished = list(self._history.finished.values())
        chosen = self._dice.sample(finished, min(5, len(finished))) + finished[-3:]
        self._dice.shuffle(chosen)
        return [seal(_told(each)) for each in chosen]

    def _otherwise(self) -> Sequence[Message]:
        """Appointments that have a charge, at another price and with another end."""
        seen = [self._history.finished[each] for each in self._history.seen if each in self._history.finished]
        chosen = self._dice.sample(seen, min(3, len(seen)))
        return [seal(replace(_told(each), price=Money("1.23"), end=_told(each).end + timedelta(hours=5))) for each in chosen]


def _told(appointment: Json) -> AppointmentFinished:
    """The fact that the service tells of it."""
    start, end = (datetime.fromisoformat(f"{appointment[name]}+00:00") for name in ("start_date", "end_date"))
    fact = _fact(appointment["id"], start, (end - start).total_seconds(), Money(Decimal(appointment["price"])))
    return replace(fact, physician_id=UUID(appointment["physician_id"]), patient_id=UUID(appointment["patient_id"]))


def _fact(appointment_id: str, start: datetime, seconds: float, price: Money) -> AppointmentFinished:
    return AppointmentFinished(
        appointment_id=UUID(appointment_id),
        physician_id=uuid4(),
        patient_id=uuid4(),
        price=price,
        start=start,
        end=start + timedelta(seconds=seconds),
    )
