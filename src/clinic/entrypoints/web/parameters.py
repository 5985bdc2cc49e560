"""What clients send beside a body: limits, cursors, dates, and the Prefer header."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import msgspec
from litestar.params import HeaderParameter, QueryParameter
from msgspec import Meta

from clinic.entrypoints.web.problems import FieldProblem, Invalid

MAX_WAIT = 30
MAX_DIGITS = 19
PREFERENCE = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*(?:"|\\?\Z))+', re.DOTALL)
"""A preference up to its comma. An open quote extends to the end of the text: every quote matches, so that
nothing is read twice.
"""

T = TypeVar("T")

Limit = Annotated[int, QueryParameter(ge=1, le=100, description="How many at most.")]
DEFAULT_LIMIT = 20
From = Annotated[
    datetime | None,
    QueryParameter(
        description="Charged at this moment or later, like 2020-12-01 13:00:00; UTC where no zone is named."
    ),
]
To = Annotated[
    datetime | None,
    QueryParameter(
        description="Charged before this moment. The list up to it is complete a minute after it, while "
        "/health/ready says ready; a charge whose store did not answer can still appear until a minute after "
        "it is ready again."
    ),
]
Prefer = Annotated[
    str | None,
    HeaderParameter(
        name="Prefer",
        description="`wait=5`: wait up to so many seconds for the charge, at most 30 (RFC 7240).",
    ),
]
Next = Annotated[
    str | None,
    Meta(description="Give it as `after` for the next page; null on the last one.", examples=[None]),
]


def utc(field: str, moment: datetime | None) -> datetime | None:
    """A moment that a client gave; UTC where it named no zone. Raises `Invalid`."""
    if moment is None or moment.tzinfo is None:
        return moment and moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise Invalid(
            [FieldProblem(field, "is beyond all dates: give one between the years 1 and 9999 in UTC")]
        ) from None


def cursor(place: object) -> str:
    """Where a page ends, opaque to clients."""
    return urlsafe_b64encode(msgspec.msgpack.encode(place)).decode().rstrip("=")


def place(text: str | None, shape: type[T]) -> T | None:
    """The place in a cursor. Raises `Invalid`."""
    if text is None:
        return None
    try:
        return msgspec.msgpack.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=shape)
    except (ValueError, msgspec.MsgspecError):
        raise Invalid(
            [FieldProblem("after", "is no cursor: give the `next` of the page before, as it is")]
        ) from None


def parse_wait(prefer: Iterable[str]) -> int | None:
    """The seconds that a client is willing to wait (RFC 7240, section 4.3), at most 30; None if none.

    Unreadable preferences are ignored and the first of a repeated one counts, both as the RFC says.
    """
    for preference in PREFERENCE.findall(",".join(prefer)):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            seconds = value.strip().strip('"')
            return (
                min(int(seconds), MAX_WAIT)
                if seconds.isascii() and seconds.isdigit() and len(seconds) < MAX_DIGITS
                else None
            )
    return None
