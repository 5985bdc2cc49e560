"""What clients send beside a body: query parameters, cursors, dates, and the Prefer header."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from litestar.connection import ASGIConnection
from litestar.handlers import HTTPRouteHandler
from litestar.params import HeaderParameter, QueryParameter
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec import Meta

from clinic.domain.times import cut
from clinic.entrypoints.web.problems import QUERY_IN_WORDS, TIME_IN_WORDS, FieldProblem, Invalid

MAX_WAIT = 30
SECONDS = re.compile("[0-9]{1,18}")
PREFERENCE = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*(?:"|\\?\Z))+', re.DOTALL)
"""A preference up to its comma. An open quote extends to the end of the text, so nothing is read twice."""

T = TypeVar("T")


class Place(NamedTuple):
    """Of an event that waits to be published, among all that wait."""

    saved_at: Annotated[datetime, Meta(tz=True)]
    subject: str


Limit = Annotated[int, QueryParameter(ge=1, le=100, description="How many at most.")]
DEFAULT_LIMIT = 20
DATE_TIME = {"format": "date-time"}
TIME_PATTERN = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?$"
"""So that Litestar names a wrong time together with whatever else is wrong; `utc` reads it."""
From = Annotated[
    str | None,
    QueryParameter(
        pattern=TIME_PATTERN,
        schema_extra=DATE_TIME,
        description="Charged at this moment or later, like 2020-12-01 13:00:00; UTC if no zone is given.",
    ),
]
To = Annotated[
    str | None,
    QueryParameter(
        pattern=TIME_PATTERN,
        schema_extra=DATE_TIME,
        description="Charged before this moment. The list up to it is complete a minute after it, while "
        "/health/ready says ready; a charge whose store did not answer can still appear until a minute after "
        "it is ready again.",
    ),
]
StartedBefore = Annotated[
    str | None,
    QueryParameter(
        pattern=TIME_PATTERN,
        schema_extra=DATE_TIME,
        description="Started before this moment, like 2020-12-01 13:00:00; UTC if no zone is given. "
        "Only with `finished=false`: what was opened long ago and may have been forgotten.",
    ),
]
Late = Annotated[
    str | None,
    QueryParameter(
        pattern="^[1-9][0-9]{0,7}$",  # as an int, Litestar would take 1e3 and 30.0, too
        description="Only what is finished and whose event has waited for more than that many seconds to be "
        "published, the longest first. A list of its own: with `limit` and `after`, and no other filter.",
    ),
]
Prefer = Annotated[
    str | None,
    HeaderParameter(
        name="Prefer",
        description="`wait=5`: wait up to 5 seconds for the charge; at most 30 (RFC 7240).",
    ),
]
KEY_PATTERN = r'([!#-~][!-~]{0,254})|"((?:[!#-\[\]-~]|\\["\\]){1,255})"'
IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        schema_extra={"pattern": f"^(?:{KEY_PATTERN})$"},
        description="Makes the request safe to repeat: 1 to 255 visible characters, quoted or not, that no "
        "other appointment was started with. The same key and body answer the same appointment, as it "
        "started, however much later. Keys never expire.",
    ),
]
Next = Annotated[
    str | None,
    Meta(description="Give it as `after` for the next page; null on the last one.", examples=[None]),
]


def checking_query(app: ASGIApp) -> ASGIApp:
    """A middleware for every route of the API: a parameter that is unknown or comes twice raises `Invalid`.

    Not a guard, for which Litestar makes a connection at each request: that costs a tenth of `POST /`.
    """

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("query_string"):
            _check_query(ASGIConnection(scope), scope["route_handler"])
        await app(scope, receive, send)

    return checked


def _check_query(connection: ASGIConnection[Any, Any, Any, Any], handler: object) -> None:
    if not isinstance(handler, HTTPRouteHandler) or not handler.resolve_include_in_schema():
        return  # a page for people, or metrics: they take no parameters and answer all the same
    known = [
        field.kwarg_definition.name or name
        for name, field in handler.parsed_fn_signature.parameters.items()
        if isinstance(field.kwarg_definition, QueryParameter)
    ]
    pairs = list(connection.query_params.multi_items())
    given = Counter(name for name, _ in pairs)
    right = f"use {', '.join(known)}" if known else "this path takes no parameters"
    errors = [FieldProblem(name, f"is not a known parameter: {right}") for name in given if name not in known]
    errors += [FieldProblem(name, "comes more than once: give it once") for name in known if given[name] > 1]
    # Litestar reads these as "no filter", which would list everything.
    unset = [name for name, text in pairs if name in QUERY_IN_WORDS and text.lower() in ("", "null")]
    if errors := errors or [FieldProblem(name, QUERY_IN_WORDS[name]) for name in unset]:
        raise Invalid(errors)


def utc(field: str, text: str | None) -> datetime | None:
    """A moment that a client gave, in UTC, also if it names no zone. Raises `Invalid`."""
    if text is None:
        return None
    try:
        moment = msgspec.convert(cut(text), datetime)  # strict: no number is a moment
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except msgspec.ValidationError:
        raise Invalid([FieldProblem(field, TIME_IN_WORDS)]) from None
    except OverflowError:
        right = "give one between the years 1 and 9999 in UTC"
        raise Invalid([FieldProblem(field, f"is out of range: {right}")]) from None


def cursor(place: object) -> str:
    """Where a page ends, opaque to clients."""
    return urlsafe_b64encode(msgspec.msgpack.encode(place)).decode().rstrip("=")


def place(text: str | None, shape: type[T]) -> T | None:
    """The place that a cursor names. Raises `Invalid`."""
    if text is None:
        return None
    try:
        return msgspec.msgpack.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=shape)
    except (ValueError, msgspec.MsgspecError):
        raise Invalid(
            [FieldProblem("after", "is not a valid cursor: give the `next` of the page before, unchanged")]
        ) from None


def parse_key(given: Sequence[str]) -> str | None:
    """The key in the header `Idempotency-Key`; None without one. Raises `Invalid`.

    See draft-ietf-httpapi-idempotency-key-header: a quoted string. Sent without quotes it is the same key.
    """
    if not given:
        return None
    if len(given) > 1 or not (match := re.fullmatch(KEY_PATTERN, given[0])):
        right = 'give it once, with 1 to 255 visible characters, like "8e03978e-40d5-43dd-bc93-6894a57f9324"'
        raise Invalid([FieldProblem("Idempotency-Key", f"cannot be used: {right}")])
    bare, quoted = match.groups()
    return bare or re.sub(r"\\(.)", r"\1", quoted)


def parse_wait(prefer: Iterable[str]) -> int | None:
    """The seconds that a client is willing to wait (RFC 7240, section 4.3), at most 30; None if none.

    Unreadable preferences are ignored and the first of a repeated one counts, both as the RFC says.
    """
    for preference in PREFERENCE.findall(",".join(prefer)):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            seconds = value.strip().strip('"')
            return min(int(seconds), MAX_WAIT) if SECONDS.fullmatch(seconds) else None
    return None
