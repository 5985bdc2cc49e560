"""What both apps share: problem documents, documentation, health, metrics."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeVar

from litestar import Litestar, MediaType, Request, Response, Router, get
from litestar.di import Provide
from litestar.exceptions import InternalServerException
from litestar.handlers import BaseRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from msgspec import Meta, Struct

from clinic.domain.errors import NotNow
from clinic.domain.messaging.ports import Resource
from clinic.domain.money import Money
from clinic.entrypoints.formats import money
from clinic.entrypoints.metrics import Metrics
from clinic.entrypoints.service import Lifecycle
from clinic.entrypoints.telemetry import LoggingTelemetry
from clinic.entrypoints.tracing import Tracing
from clinic.entrypoints.web.documentation import MoneySchema, documentation
from clinic.entrypoints.web.events import Events
from clinic.entrypoints.web.methods import Application, answering, or_not_found
from clinic.entrypoints.web.parameters import checking_query
from clinic.entrypoints.web.problems import documented, respond

T = TypeVar("T")

MAX_BODY = 64 * 1024
CLIENT_LEFT = "client disconnected prematurely"
"""How Litestar says that a client went away in the middle of its body: nobody's failure."""
STORE_TIMEOUT = 2.0
"""Seconds that a health check waits for the store."""
DETAIL_TIMEOUT = 1.0
"""Seconds that it waits, after that, for the age of the oldest unpublished event, and for dead letters."""
MAX_AGE = 30.0
"""Seconds that an event may wait to be published while the relay reports no problem."""
MAX_REASON = 300


class Health(Struct, frozen=True, omit_defaults=True):
    """Ready: all is well. Degraded: requests are answered, work behind them fails. Unready: requests fail."""

    status: Literal["ready", "degraded", "unready"]
    checks: Annotated[
        dict[str, str],
        Meta(description="Each part: ok, or what is wrong.", examples=[{"store": "ok", "relay": "ok"}]),
    ]
    oldest_unpublished_seconds: Annotated[
        float | None,
        Meta(description="How long the oldest event waits to be published; absent where unknown."),
    ] = None


async def health(
    check: Awaitable[None],
    check_alive: Callable[[], None],
    age: Callable[[], Awaitable[float | None]] | None = None,
    dead_letters: Callable[[], Awaitable[str | None]] | None = None,
    **loop: str | None,
) -> Health:
    """Unready: the store does not answer, or the loop or a thread behind the service has ended.

    `loop` gives the problem of that loop. Where the age of the oldest unpublished event is known and too
    high, events wait although their loop has no problem. `dead_letters` says which finishes are not charged
    because of one. Where the age is unknown, it decides nothing. Where the letters are, a finish may be among
    them: degraded.
    """
    checks = {"store": "ok"} | {name: _short(problem or "ok") for name, problem in loop.items()}
    status: Literal["ready", "degraded", "unready"] = "degraded" if any(loop.values()) else "ready"
    try:
        async with asyncio.timeout(STORE_TIMEOUT):
            await check
    except (NotNow, TimeoutError) as error:
        status, checks["store"] = "unready", _short(str(error) or f"no answer within {STORE_TIMEOUT:.0f} s")
    try:
        check_alive()
    except NotNow as error:
        status = "unready"
        checks.update(dict.fromkeys(loop, _short(str(error))))
    answers = checks["store"] == "ok"
    waits = await _if_known(age) if age and answers else None
    if waits is not None and waits > MAX_AGE and status == "ready":
        status = "degraded"
        checks.update(dict.fromkeys(loop, f"an event has waited for {waits:.0f} s to be published"))
    if dead_letters and answers and (letters := await _or_why_unknown(dead_letters)):
        status = "degraded" if status == "ready" else status
        checks["dead_letters"] = _short(letters)
    return Health(status, checks, waits)


async def _if_known(ask: Callable[[], Awaitable[T | None]]) -> T | None:
    try:
        async with asyncio.timeout(DETAIL_TIMEOUT):
            return await ask()
    except Exception:  # noqa: BLE001 — a detail never makes a service unready
        return None


async def _or_why_unknown(ask: Callable[[], Awaitable[str | None]]) -> str | None:
    try:
        async with asyncio.timeout(DETAIL_TIMEOUT):
            return await ask()
    except Exception as error:  # noqa: BLE001 — whatever it is, it is said
        reason = str(error) or f"no answer within {DETAIL_TIMEOUT:g} s"
        return f"whether finishes are dead-lettered is not known: {reason}"


def _short(reason: str) -> str:
    """One line, and not a server's whole answer."""
    line = reason.partition("\n")[0]
    return line if len(line) <= MAX_REASON else f"{line[:MAX_REASON]} …"


def application(
    *,
    title: str,
    description: str,
    routes: Sequence[BaseRouteHandler | Router],
    events: Events | None = None,
    dependencies: Mapping[str, Callable[[], object]],
    ready: Callable[[], Awaitable[Health]],
    telemetry: LoggingTelemetry,
    metrics: Metrics,
    tracing: Tracing,
    lifecycle: Lifecycle,
    resources: Callable[[], Sequence[Resource]],
    loop: Callable[[], Coroutine[Any, Any, None]],
) -> Litestar:
    """A Litestar app of these routes and everything beside them.

    Its lifespan makes the dependencies, opens the resources and runs the loop.
    """

    @get("/health/live", tags=["health"], summary="Is the process alive?", responses=documented())
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @get(
        "/health/ready",
        tags=["health"],
        summary="Can it do its work, and if not, what is wrong?",
        responses=documented()
        | {
            HTTPStatus.SERVICE_UNAVAILABLE: ResponseSpec(
                Health, generate_examples=False, description="It cannot."
            )
        },
    )
    async def is_ready() -> Response[Health]:
        found = await ready()
        return Response(
            found, status_code=HTTPStatus.SERVICE_UNAVAILABLE if found.status == "unready" else HTTPStatus.OK
        )

    @get("/metrics", include_in_schema=False, media_type=MediaType.TEXT)
    async def show_metrics() -> bytes:
        return await metrics.scrape()

    def failed(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        response = respond(request, or_not_found(request, error))
        if isinstance(error, InternalServerException) and error.detail == CLIENT_LEFT:
            telemetry("client left", path=request.url.path)
        elif response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
            telemetry.failed("unforeseen", error)
        return response

    def all_made() -> Sequence[Resource]:
        for provider in dependencies.values():
            provider()  # a port that cannot be made ends the start, not the first request
        return resources()

    provided = {
        name: Provide(_plain(provider), sync_to_thread=False) for name, provider in dependencies.items()
    }
    handlers = [*routes, live, is_ready]
    app = Application(
        [*handlers, show_metrics, *documentation(title, description, handlers, provided, events)],
        dependencies=provided,
        exception_handlers={Exception: failed},
        lifespan=[tracing.lifespan, lambda _: lifecycle.lifespan(all_made, loop), metrics.lifespan],
        logging_config=None,
        middleware=[answering, checking_query],
        openapi_config=None,
        plugins=[MoneySchema()],
        request_max_body_size=MAX_BODY,
        type_encoders={Money: money},
    )
    app.requests, app.tracing = metrics.requests, tracing
    return app


def _plain(provider: Callable[[], object]) -> Callable[[], Any]:
    # Litestar reads a dependency's signature, which a provider does not have.
    def provide() -> Any:
        return provider()

    return provide
