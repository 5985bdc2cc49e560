"""Every failure as a problem document (RFC 9457): what happened, and what would be right."""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from msgspec import Meta, Struct

from clinic.domain.errors import NotFound, NotNow, Refused, Unreadable
from clinic.entrypoints import trace_context
from clinic.entrypoints.web.methods import with_head

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "1"
DETAILS = {
    HTTPStatus.UNAUTHORIZED: "This path needs the operator's token: Authorization: Bearer ...",
    HTTPStatus.NOT_FOUND: "No such path: see /docs.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "A body may have 64 KiB at most.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This path does not support this method: see /docs.",
}
TITLES = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Content Too Large",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Unprocessable Content",
}
"""As RFC 9110 has them, where versions of Python differ: a problem's type must not depend on that."""
STATUS_OF = {
    "key-reused": HTTPStatus.UNPROCESSABLE_ENTITY,
    "not-finished": HTTPStatus.CONFLICT,
    "stored-unreadable": HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""Of refusals whose code makes a difference."""
UUID_IN_WORDS = "is not a UUID: give one like 84ab6121-c4a8-4684-8cc2-b03024ec0f1d"
IN_WORDS: dict[type, str] = {
    msgspec.inspect.UUIDType: "a UUID",
    msgspec.inspect.StrType: "a text",
    msgspec.inspect.BoolType: "true or false",
    msgspec.inspect.NoneType: "null",
}
"""What would be right, for each kind of field that a body has."""
TIME_IN_WORDS = "is not a valid time: give one like 2020-12-01 13:00:00 or 2020-12-01T13:00:00Z"
QUERY_IN_WORDS = {
    "limit": "cannot be used: give a whole number from 1 to 100",
    "physician_id": UUID_IN_WORDS,
    "patient_id": UUID_IN_WORDS,
    "charged_from": TIME_IN_WORDS,
    "charged_to": TIME_IN_WORDS,
    "started_before": TIME_IN_WORDS,
    "finished": "cannot be used: give true or false",
    "late": "cannot be used: give a whole number of seconds from 1 to 99999999",
}
"""What would be right, for each query parameter that Litestar reads."""


class FieldProblem(Struct, frozen=True):
    """What is wrong with one field, and what would be right."""

    field: Annotated[str, Meta(examples=["patient_id"])]
    problem: Annotated[str, Meta(examples=["is missing: give a UUID"])]


class Problem(Struct, frozen=True, omit_defaults=True):
    """A problem document of RFC 9457."""

    type: Annotated[
        str,
        Meta(description="Names the kind of problem; stable.", examples=["urn:clinic:problem:bad-request"]),
    ]
    title: Annotated[str, Meta(examples=["Bad Request"])]
    status: Annotated[int, Meta(examples=[400])]
    detail: Annotated[str, Meta(examples=["The request cannot be used: see errors."])]
    instance: Annotated[str, Meta(description="The path of the request.", examples=["/"])]
    errors: Annotated[list[FieldProblem], Meta(description="For bad input: each field that is wrong.")] = []
    trace_id: Annotated[
        str,
        Meta(
            description="For a failure of the service: the trace of the request, if it has one (W3C Trace "
            "Context). The lines of the log have it, too.",
            examples=["4bf92f3577b34da6a3ce929d0e0e4736"],
        ),
    ] = ""


class Invalid(Unreadable):
    """Bad input, field by field."""

    def __init__(self, errors: list[FieldProblem]) -> None:
        super().__init__("; ".join(f"{error.field} {error.problem}" for error in errors))
        self.errors = errors


def documented(*statuses: HTTPStatus) -> dict[int, ResponseSpec]:
    """These problems for a route's `responses`, with those of every route: 400 and 500."""
    return {
        int(status): ResponseSpec(
            Problem, generate_examples=False, description=_title(status), media_type=MEDIA_TYPE
        )
        for status in (*statuses, HTTPStatus.BAD_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR)
    }


def respond(
    request: Request[Any, Any, Any], error: Exception, headers: dict[str, str] | None = None
) -> Response[Problem]:
    """The problem document of an error."""
    status = _status(error)
    problem = Problem(
        type=f"urn:clinic:problem:{_title(status).lower().replace(' ', '-')}",
        title=_title(status),
        status=int(status),
        detail=_detail(error, status),
        instance=request.scope["raw_path"].decode(errors="replace"),
        errors=_errors(error),
        trace_id=_trace_id(status),
    )
    extra = dict(getattr(error, "headers", None) or {}) | (headers or {})
    if "allow" in extra:
        extra["allow"] = with_head(extra["allow"])
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        extra.setdefault("Retry-After", RETRY_AFTER)
    return Response(problem, status_code=int(status), media_type=MEDIA_TYPE, headers=extra)


def _title(status: HTTPStatus) -> str:
    return TITLES.get(status, status.phrase)


def _status(error: Exception) -> HTTPStatus:
    match error:
        case HTTPException():
            return HTTPStatus(error.status_code)
        case NotFound():
            return HTTPStatus.NOT_FOUND
        case Refused():
            return STATUS_OF.get(error.code, HTTPStatus.BAD_REQUEST)
        case NotNow():
            return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.INTERNAL_SERVER_ERROR


def _detail(error: Exception, status: HTTPStatus) -> str:
    if _errors(error):
        return "The request cannot be used: see errors."
    match error:
        case Refused() | NotNow():
            return str(error)
        case HTTPException() if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return DETAILS.get(status, error.detail)
    return "An unexpected error occurred; it was logged."


def _trace_id(status: HTTPStatus) -> str:
    context = trace_context.current.get() if status >= HTTPStatus.INTERNAL_SERVER_ERROR else None
    return context.trace_id if context else ""


def _errors(error: Exception) -> list[FieldProblem]:
    match error:
        case Invalid(errors=errors):
            return errors
        case HTTPException(extra=[*extra]):
            return [FieldProblem(str(error["key"]), QUERY_IN_WORDS[error["key"]]) for error in extra]
    return []


def json_body(shape: type[Struct]) -> Callable[[Request[Any, Any, Any]], Awaitable[None]]:
    """Before a request is handled: raise what is wrong with its body, field by field."""
    decoder = msgspec.json.Decoder(shape)
    expected = {
        field.name: _right(msgspec.inspect.type_info(field.type)) for field in msgspec.structs.fields(shape)
    }
    fewest = sum(field.required for field in msgspec.structs.fields(shape))

    async def check(request: Request[Any, Any, Any]) -> None:
        if request.content_type[0] != "application/json":
            raise HTTPException(
                status_code=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                detail="Send JSON, with the header Content-Type: application/json.",
            )
        body = await request.body()
        try:
            _reject_nil(decoder.decode(body))
        except (msgspec.DecodeError, Invalid, RecursionError, UnicodeDecodeError) as error:
            raise Invalid(
                _problems(body, shape, expected)
                or _repeated(body)
                or [FieldProblem("body", f"cannot be used: {error}")]
            ) from None
        if body.count(b":") > fewest and (repeated := _repeated(body)):
            raise Invalid(repeated)

    return check


def _repeated(body: bytes) -> list[FieldProblem]:
    """The fields that come more than once. Slower than to decode: asked where there is more than needed."""
    given: Counter[str] = Counter()
    json.loads(body, object_pairs_hook=lambda pairs: given.update(name for name, _ in pairs))
    return [
        FieldProblem(name, "comes more than once: give it once") for name, times in given.items() if times > 1
    ]


def _reject_nil(body: Struct) -> None:
    if any(isinstance(value, UUID) and not value.int for value in msgspec.structs.astuple(body)):
        raise Invalid([])


def _problems(body: bytes, shape: type[Struct], expected: Mapping[str, str]) -> list[FieldProblem]:
    """The slow path: msgspec stops at the first problem, a person wants to see them all."""
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return [FieldProblem("body", f"is not JSON: {error}")]
    if not isinstance(given, dict):
        return [
            FieldProblem(
                "body", "is not a JSON object: give one with the fields " + ", ".join(shape.__struct_fields__)
            )
        ]
    found = [
        FieldProblem(field.name, problem)
        for field in msgspec.structs.fields(shape)
        if (problem := _problem(given, field, expected[field.name]))
    ]  # fmt: skip
    unknown = [
        FieldProblem(name, "is not a known field: leave it out")
        for name in given
        if name not in shape.__struct_fields__
    ]
    return found + unknown


def _problem(given: dict[str, Any], field: msgspec.structs.FieldInfo, right: str) -> str | None:
    if field.name not in given:
        return f"is missing: give {right}" if field.required else None
    try:
        value = msgspec.convert(given[field.name], field.type)
    except msgspec.ValidationError:
        return (
            UUID_IN_WORDS if right == IN_WORDS[msgspec.inspect.UUIDType] else f"cannot be used: give {right}"
        )
    return (
        "is the nil UUID, which names nobody: give another"
        if isinstance(value, UUID) and not value.int
        else None
    )


def _right(kind: msgspec.inspect.Type) -> str:
    """What would be right, in words."""
    match kind:
        case msgspec.inspect.Metadata(type=inner):
            return _right(inner)
        case msgspec.inspect.UnionType(types=types):
            return " or ".join(_right(type_) for type_ in types)
        case msgspec.inspect.StrType(min_length=int(least), max_length=int(most)):
            return f"a text of {least} to {most} characters"
    return IN_WORDS[type(kind)]
