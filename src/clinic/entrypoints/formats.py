"""How the clinic's values look in JSON: amounts and dates."""

from typing import Annotated

import msgspec
from msgspec import Meta

from clinic.domain.money import Money
from clinic.domain.tracing import shown as date

__all__ = ["Date", "as_json", "date", "money"]

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


def as_json(document: msgspec.Struct) -> str:
    """For machines: on one line, an amount as a number with two decimals."""
    return msgspec.json.encode(document, enc_hook=_encoded).decode()


def _encoded(value: object) -> msgspec.Raw:
    if isinstance(value, Money):
        return money(value)
    raise NotImplementedError(type(value))
