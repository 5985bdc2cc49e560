"""HEAD, OPTIONS and 405, once for every path; how long each request took, and its place in a trace."""

import asyncio
from http import HTTPStatus
from time import perf_counter
from typing import Any, cast

from litestar import Litestar, Request
from litestar.exceptions import MethodNotAllowedException, NotFoundException
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from litestar.utils import normalize_path

from clinic.domain.errors import Unavailable
from clinic.entrypoints.metrics import Histogram, route_labels
from clinic.entrypoints.tracing import Tracing

UNUSED = "TRACE"
"""A method that no path takes: Litestar answers it with the methods that the path does take, or with 404."""


class Application(Litestar):
    """Answers HEAD as GET without its body, and OPTIONS with the methods of a path."""

    requests: Histogram
    """How long each took, by its route, method and class of status."""
    tracing: Tracing

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        began = perf_counter()
        method = scope["method"]
        status = 0
        begun = self.tracing.begin_request(method, scope["path"], scope["headers"])

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        wrapped: Send = sending
        if method == "HEAD":
            scope, wrapped = scope | {"method": "GET"}, _without_body(sending)
        elif method == "OPTIONS":
            scope, wrapped = scope | {"method": UNUSED}, _allowed_methods(sending)
        try:
            await super().__call__(scope, receive, wrapped)
        finally:
            labels = route_labels(scope.get("path_template"), method, status)
            self.requests.observe(perf_counter() - began, labels)
            self.tracing.end_request(begun, labels[0], labels[1], status)


def answering(app: ASGIApp) -> ASGIApp:
    """A middleware for every route: what is no `Exception` is answered, and logged, like everything else.

    The panic of a library in another language (of a clock before 1970, for example) is a failure. A request
    that outlasts the end of its service is cancelled: 503, since the outcome of a write is unknown then.
    """

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError as end:
            raise Unavailable("the service is stopping") from end
        except (Exception, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as panic:
            raise RuntimeError(f"{type(panic).__name__}: {panic}") from panic

    return answered


def or_not_found(request: Request[Any, Any, Any], error: Exception) -> Exception:
    """A 404 instead of a 405 where an id in the path cannot be read: Litestar looks at the method first."""
    if isinstance(error, MethodNotAllowedException):
        allowed = (error.headers or {})["allow"].partition(",")[0]
        path = normalize_path(request.scope["path"])
        try:
            request.app.asgi_router.handle_routing(path=path, method=allowed)
        except NotFoundException as not_found:
            return not_found
    return error


def with_head(allow: str) -> str:
    """An `Allow` header with OPTIONS, and with HEAD if it has GET."""
    methods = {method.strip() for method in allow.split(",")} | {"OPTIONS"}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def _without_body(send: Send) -> Send:
    async def sending(message: Message) -> None:
        await send(
            cast(Message, {**message, "body": b""}) if message["type"] == "http.response.body" else message
        )

    return sending


def _allowed_methods(send: Send) -> Send:
    is_known = False

    async def sending(message: Message) -> None:
        nonlocal is_known
        if message["type"] == "http.response.start" and message["status"] == HTTPStatus.METHOD_NOT_ALLOWED:
            is_known = True
            allow = [header for header in message["headers"] if header[0] == b"allow"]
            message = cast(Message, {**message, "status": 204, "headers": allow})
        elif message["type"] == "http.response.body" and is_known:
            message = cast(Message, {**message, "body": b""})
        await send(message)

    return sending
