"""Signing in: a name and the operator's token, kept encrypted in a cookie; and the language."""

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from litestar import get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.middleware.session.client_side import ClientSideSessionBackend, CookieBackendConfig
from litestar.params import FromQuery
from litestar.response import Redirect, Template
from litestar.types import Empty, Message, ScopeSession

from clinic.domain.errors import NotFound, Refused
from clinic.entrypoints.console.client import Services, SignedOut
from clinic.entrypoints.console.languages import LANGUAGES, marked
from clinic.entrypoints.console.view import View, local

CHECKED: Final = "/dead-letters/groups/"
"""A path of the financial service that only an operator may read."""
REASONS: Final = {
    SignedOut: marked("This is not the operator's token."),
    NotFound: marked("The services have no operator's token: set CLINIC_OPERATOR_TOKEN for both of them."),
}


LOADED: Final = "session as it came"


class Sessions(ClientSideSessionBackend):
    """Sets the cookie where the session has changed, and only there.

    An answer that was under way while somebody signed out would sign them in again, and every answer would
    begin the twelve hours anew.
    """

    async def load_from_connection(self, connection: ASGIConnection[Any, Any, Any, Any]) -> dict[str, Any]:
        loaded = await super().load_from_connection(connection)
        connection.state[LOADED] = dict(loaded)
        return loaded

    async def store_in_message(
        self, scope_session: ScopeSession, message: Message, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> None:
        now = {} if scope_session is Empty else scope_session
        if now != connection.state.get(LOADED):
            await super().store_in_message(scope_session, message, connection)


@dataclass
class SessionCookie(CookieBackendConfig):
    _backend_class = Sessions


@get("/sign-in")
async def ask(view: NamedDependency[View], back: FromQuery[str] = "/") -> Template:
    return view.page("sign-in", back=local(back), problem="", by="")


@post("/sign-in")
async def sign_in(view: NamedDependency[View], services: NamedDependency[Services]) -> Template | Redirect:
    """The token is tried at once: a wrong one is said here, not at the first change."""
    form = await view.form()
    by, token = form.get("by", ""), form.get("token", "")
    back = local(form.get("back", ""))
    problem = _unusable(by, token)
    if not problem:
        try:
            await services.financial.get(msgspec.Raw, CHECKED, token=token)
        except Refused as error:
            problem = REASONS.get(type(error), str(error))
    if problem:
        return view.page("sign-in", status=422, back=back, problem=problem, by=by)
    view.request.session.update(by=by, token=token)
    return view.back(back)


def _unusable(by: str, token: str) -> str:
    if not by or not by.isprintable():
        return str(marked("Give your name: it stands beside whatever you change."))
    if not token or not token.isascii() or not token.isprintable():
        return str(REASONS[SignedOut])
    return ""


@post("/sign-out")
async def sign_out(view: NamedDependency[View]) -> Redirect:
    for name in ("by", "token"):
        view.request.session.pop(name, None)
    return view.back("/")


@post("/language")
async def choose_language(view: NamedDependency[View]) -> Redirect:
    form = await view.form()
    if form.get("language") in LANGUAGES:
        view.request.session["language"] = form["language"]
    return view.back(local(form.get("back", "")))


ROUTES: Final = [ask, sign_in, sign_out, choose_language]
