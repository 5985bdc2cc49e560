"""What only an operator may do: it takes the token that is set, and without one there is no such path."""

import hmac
from typing import Any

from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from clinic.entrypoints.web.documentation import OPERATOR

SECURITY: list[dict[str, list[str]]] = [{OPERATOR: []}]
"""How an operation says that it takes the token."""


def only_with(token: str) -> Guard:
    """Refuse every request that does not bring this token, as `Authorization: Bearer`."""
    expected = token.encode()

    def check(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        scheme, given = connection.headers.get("authorization", "").partition(" ")[::2]
        same = hmac.compare_digest(given.strip().encode("latin-1"), expected)
        if scheme.lower() != "bearer" or not same:
            raise NotAuthorizedException(headers={"WWW-Authenticate": "Bearer"})

    return check
