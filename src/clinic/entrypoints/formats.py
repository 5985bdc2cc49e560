"""How the clinic's values look in JSON: amounts and dates."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from clinic.domain.money import Money

Date = Annotated[
    str,
    Meta(
        description="A moment in UTC, to the second.",
        examples=["2020-12-01 13:00:00"],
        pattern=r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$",
    ),
]


def money(amount: Money) -> msgspec.Raw:
    """A JSON number with two decimals."""
    return msgspec.Raw(str(amount).encode())


def date(moment: datetime) -> str:
    """A moment as it is printed: `YYYY-MM-DD HH:MM:SS`, UTC."""
    return moment.isoformat(" ", "seconds")[:19]


def as_json(document: msgspec.Struct) -> str:
    """For machines: on one line, an amount as a number with two decimals."""
    return msgspec.json.encode(document, enc_hook=_encoded).decode()


def _encoded(value: object) -> msgspec.Raw:
    if isinstance(value, Money):
        return money(value)
    raise NotImplementedError(type(value))
