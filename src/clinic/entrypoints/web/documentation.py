"""The documentation that a service serves: its two documents, and the pages that show them."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any

from litestar import Litestar, MediaType, Router, get
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.exceptions import NotFoundException
from litestar.handlers import BaseRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.plugins import OpenAPISchemaPlugin
from litestar.static_files import create_static_files_router
from litestar.types import Guard
from litestar.typing import FieldDefinition

from clinic.domain.money import Money
from clinic.entrypoints.web.events import Document, Events
from clinic.entrypoints.web.events_page import page as events_page

OPERATOR = "operator"
"""How the document names the operator's token."""
FILES = "/docs/files"
FOLDERS = (Path(__file__).with_name("files"), Path(__file__).with_name("viewers"))
"""Builds of both viewers, put there when the package is built or installed (see hatch_build.py); and what
starts them.
"""

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
"""Of every page. What a viewer needs beyond it, it gets on its own page alone."""
SWAGGER_POLICY = f"{POLICY}; img-src 'self' data:"
REDOC_POLICY = f"{POLICY}; img-src 'self' data:; style-src 'self' 'unsafe-inline'; worker-src blob:"

SWAGGER = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="icon" href="/docs/files/swagger-ui-dist/favicon-32x32.png">
<link rel="stylesheet" href="/docs/files/swagger-ui-dist/swagger-ui.css"></head>
<body><div id="ui"></div><script src="/docs/files/swagger-ui-dist/swagger-ui-bundle.js"></script>
<script src="/docs/files/swagger.js"></script></body></html>
"""
REDOC = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="icon" href="/docs/files/swagger-ui-dist/favicon-32x32.png">
<link rel="stylesheet" href="/docs/files/redoc.css"></head>
<body><div id="ui"></div><script src="/docs/files/redoc/bundles/redoc.standalone.js"></script>
<script src="/docs/files/redoc.js"></script></body></html>
"""


def documentation(
    title: str,
    description: str,
    routes: Sequence[BaseRouteHandler | Router],
    dependencies: Mapping[str, Provide],
    events: Events | None,
) -> list[Any]:
    """Handlers for /docs, /redoc, /openapi.json and the files behind them, /events and /asyncapi.json.

    Without events, the last two are left out.
    """

    @cache
    def schema() -> dict[str, Any]:
        # Litestar's own schema routes answer unknown paths with an HTML page: the app that has them is never
        # served.
        described = OpenAPIConfig(
            title=title, version=version("clinic"), description=description, use_handler_docstrings=True
        )
        app = Litestar(
            list(routes),
            dependencies=dependencies,
            openapi_config=described,
            plugins=[MoneySchema()],
            logging_config=None,
        )
        return _completed(app.openapi_schema.to_schema())

    @get("/openapi.json", include_in_schema=False, sync_to_thread=False)
    def openapi() -> dict[str, Any]:
        return schema()

    def page(path: str, html: str, policy: str) -> BaseRouteHandler:
        @get(
            path,
            include_in_schema=False,
            sync_to_thread=False,
            media_type=MediaType.HTML,
            name=path,
            response_headers=_headers(policy),
        )
        def show() -> str:
            return html.format(title=title)

        return show

    files = create_static_files_router(
        path=FILES, directories=list(FOLDERS), include_in_schema=False, guards=[_only_files(FOLDERS)]
    )
    about_events = _about(events) if events else []
    viewers = [page("/docs", SWAGGER, SWAGGER_POLICY), page("/redoc", REDOC, REDOC_POLICY)]
    return [openapi, *viewers, *about_events, files]


def _headers(policy: str) -> dict[str, str]:
    return {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}


def _about(events: Events) -> list[Any]:
    @get("/asyncapi.json", include_in_schema=False, sync_to_thread=False)
    def asyncapi() -> Document:
        return events.document

    @get(
        "/events",
        include_in_schema=False,
        sync_to_thread=False,
        media_type=MediaType.HTML,
        response_headers=_headers(POLICY),
    )
    def show_events() -> str:
        return events_page(events)

    return [asyncapi, show_events]


def _only_files(folders: Iterable[Path]) -> Guard:
    """A 404 also for a name that no file can have: Litestar fails where it asks the system for one."""

    def check(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        try:
            name = connection.scope["path"].removeprefix(FILES).lstrip("/")
            is_file = any((folder / name).is_file() for folder in folders)
        except OSError:  # too long
            is_file = False
        if not is_file:
            raise NotFoundException

    return check


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    """What Litestar does not show, or shows although it never comes."""
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    if any("security" in operation for operation in operations):
        bearer = {"type": "http", "scheme": "bearer", "description": "The token in CLINIC_OPERATOR_TOKEN."}
        document["components"]["securitySchemes"] = {OPERATOR: bearer}
    for operation in operations:
        for body in operation.get("requestBody", {}).get("content", {}).values():
            name = body["schema"]["$ref"].rpartition("/")[2]
            document["components"]["schemas"][name]["additionalProperties"] = False
        answers = operation["responses"]
        answers["431"] = {  # from the protocol below the app, which also decides on its form
            "description": HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE.phrase,
            "content": {"text/plain; charset=utf-8": {"schema": {"type": "string"}}},
        }
        if "application/json" in answers.get("400", {}).get("content", {}):
            del answers["400"]  # its own, for what can only be a 404 here
        if "401" in answers:
            answers["401"].setdefault("headers", {})["WWW-Authenticate"] = _header(
                "Bearer: send the token.", "string"
            )
        if "503" in answers:
            answers["503"].setdefault("headers", {})["Retry-After"] = _header(
                "Seconds after which to ask again.", "integer"
            )
        if any(parameter["name"] == "Prefer" for parameter in operation.get("parameters", ())):
            for status in ("200", "404"):
                answers[status].setdefault("headers", {})["Preference-Applied"] = _header(
                    "The wait that was granted.", "string"
                )
        if "201" in answers:
            answers["201"]["links"] = _links(document["paths"]["/{appointment_id}"].values())
    return document


def _links(operations: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What can be done with an appointment that was started."""
    return {
        operation["operationId"]: {
            "operationId": operation["operationId"],
            "description": operation["summary"],
            "parameters": {"appointment_id": "$response.body#/id"},
        }
        for operation in operations
    }


def _header(description: str, kind: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


class MoneySchema(OpenAPISchemaPlugin):
    """What OpenAPI says of money."""

    @staticmethod
    def is_plugin_supported_type(value: Any) -> bool:
        return value is Money

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Schema:  # noqa: ARG002 — the plugin's signature
        return Schema(
            type=OpenAPIType.NUMBER,
            minimum=0,
            description="An exact amount with two decimals: read it as a decimal, not as a float.",
            examples=[200.00],
        )
