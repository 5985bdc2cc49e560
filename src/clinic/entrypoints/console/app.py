"""The console as an app: its pages, what stands around each, and how a failure looks."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import cache
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Litestar, Request, Response, get
from litestar.config.compression import CompressionConfig
from litestar.config.csrf import CSRFConfig
from litestar.datastructures import CacheControlHeader
from litestar.di import Provide
from litestar.exceptions import HTTPException, NotFoundException, PermissionDeniedException
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.static_files import create_static_files_router
from litestar.template import TemplateConfig

from clinic.domain.errors import NotFound, NotNow, Refused
from clinic.entrypoints.console import audit, csv_files, desk, flow, history, letters, session, where
from clinic.entrypoints.console.client import Services, SignedOut
from clinic.entrypoints.console.languages import marked
from clinic.entrypoints.console.view import View, address
from clinic.entrypoints.console.watching import Watch
from clinic.entrypoints.service import Lifecycle
from clinic.entrypoints.telemetry import LoggingTelemetry

ROOMS: Final = (audit, csv_files, desk, flow, history, letters, session, where)
HERE: Final = Path(__file__).parent
MAX_BODY: Final = 64 * 1024
SIGNED_IN_FOR: Final = 12 * 3600
"""Seconds from signing in: a long shift."""
POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    # Not no-store, nor other for another cookie: Back shows the same form, with its key. A link asks again.
    "Cache-Control": "private, no-cache",
    "Vary": "Accept-Language, HX-Request",
}
YEAR: Final = 365 * 24 * 3600
CSRF_COOKIE: Final = "csrftoken"
FILES: Final = "^/files/"
"""Whatever anybody may keep has no cookie."""
SENTENCES: Final[dict[int, str]] = {
    403: marked("This page was made before its service started anew, or was kept too long. Open it again."),
    404: marked("There is no such page."),
    500: marked("Something failed that nobody foresaw; it was logged."),
}


@get(["/health/live", "/health/ready"])
async def health() -> dict[str, str]:
    """It depends on nothing: a service that is away is said on the pages."""
    return {"status": "ready"}


@get("/{path:path}")
async def nothing() -> None:
    """Found by the router, so that its page has a session and forms like every other."""
    raise NotFoundException


def create_app(
    services: Services,
    make_view: Callable[[Request[Any, Any, Any]], View],
    secret: bytes,
    telemetry: LoggingTelemetry,
    lifecycle: Lifecycle,
) -> Litestar:
    """The app that asks these services. `secret` signs and encrypts cookies: all instances share it."""

    watch = Watch(flow.Flow(services), lifecycle, telemetry)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        try:
            async with lifecycle.lifespan(lambda: (), _until_cancelled):
                yield
        finally:
            await services.close()

    def failed(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        status, said = _explained(error)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            telemetry.failed("unforeseen", error)
        view = make_view(request)
        if isinstance(error, SignedOut):
            return _to_sign_in(view)
        if view.is_part:
            return _instead_of_a_part(view)
        page = view.page("error", status=status, said=said, service=getattr(error, "service", ""))
        if isinstance(error, PermissionDeniedException):
            page.delete_cookie(CSRF_COOKIE)  # of an earlier secret, perhaps: the next page brings a new one
        return _with_headers(page)

    return Litestar(
        [
            *(page for room in ROOMS for page in room.ROUTES),
            health,
            nothing,
            create_static_files_router(
                "/files",
                [HERE / "files"],
                after_request=_with_headers_of_a_file,
                cache_control=CacheControlHeader(max_age=YEAR, immutable=True),
            ),
        ],
        after_request=_with_headers,
        compression_config=CompressionConfig("gzip", gzip_compress_level=6, exclude_opt_key="is_live"),
        csrf_config=CSRFConfig(
            _derived(secret, "forms").hex(),
            CSRF_COOKIE,
            cookie_httponly=True,
            cookie_samesite="lax",
            exclude=FILES,
        ),
        dependencies={
            "services": Provide(lambda: services, sync_to_thread=False),
            "view": Provide(make_view, sync_to_thread=False),
            "watch": Provide(lambda: watch, sync_to_thread=False),
        },
        exception_handlers={Exception: failed},
        lifespan=[lifespan],
        logging_config=None,
        middleware=[
            session.SessionCookie(
                _derived(secret, "sessions"), max_age=SIGNED_IN_FOR, samesite="lax", exclude=FILES
            ).middleware
        ],
        openapi_config=None,
        request_max_body_size=MAX_BODY,
        template_config=TemplateConfig(instance=JinjaTemplateEngine.from_environment(_templates())),
    )


async def _until_cancelled() -> None:
    """The loop behind it, which has nothing to do: one that ends by itself is a service that failed."""
    await asyncio.Event().wait()


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["utc"] = datetime.fromisoformat
    environment.globals["address"] = address
    environment.globals["file"] = _file
    return environment


@cache
def _file(name: str) -> str:
    """The address of a file, another one for other content: a browser asks for it once."""
    return f"/files/{name}?{sha256((HERE / 'files' / name).read_bytes()).hexdigest()[:12]}"


def _derived(secret: bytes, purpose: str) -> bytes:
    return sha256(purpose.encode() + b"\0" + secret).digest()


def _to_sign_in(view: View) -> Response[Any]:
    back = view.here if view.request.method == "GET" else "/letters/"
    if view.is_part:  # a script follows a redirect itself, and would put the page into the piece
        return Response("", headers={"HX-Redirect": address("/sign-in", back=back)})
    return view.back("/sign-in", back=back)


def _instead_of_a_part(view: View) -> Response[Any]:
    """No page belongs into a piece of one: a row asks again by itself, and a person gets the whole page."""
    if view.request.url.path.endswith("/row"):
        return Response("", status_code=HTTPStatus.NO_CONTENT)
    if view.request.method == "GET":
        return Response("", headers={"HX-Redirect": view.here})
    return Response("", headers={"HX-Refresh": "true"})


def _with_headers(response: Response[Any]) -> Response[Any]:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _with_headers_of_a_file(response: Response[Any]) -> Response[Any]:
    """The same for everybody."""
    for name in ("Content-Security-Policy", "X-Content-Type-Options"):
        response.headers[name] = HEADERS[name]
    return response


def _explained(error: Exception) -> tuple[int, str]:
    match error:
        case NotNow():
            return HTTPStatus.SERVICE_UNAVAILABLE, str(error)
        case NotFound():
            return HTTPStatus.NOT_FOUND, str(error)
        case Refused():
            return HTTPStatus.UNPROCESSABLE_ENTITY, str(error)
        case HTTPException() if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
            return error.status_code, SENTENCES.get(error.status_code, error.detail)
    return HTTPStatus.INTERNAL_SERVER_ERROR, SENTENCES[500]
