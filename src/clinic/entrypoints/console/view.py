"""One request's view: its reader's language, who is signed in, and the page that answers it."""

from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from litestar import Request
from litestar.response import Redirect, Template
from msgspec import Struct

from clinic.domain.errors import Misconfigured
from clinic.entrypoints.console.languages import LANGUAGES, Reader, negotiated
from clinic.entrypoints.settings import Settings

MAX_TEXT: Final = 200
"""Characters of something to look for: a longer one is nothing that the services know."""
MAX_FIELD: Final = 4096


class Operator(Struct, frozen=True):
    """Who is signed in. `by` goes into the history of what they change."""

    by: str
    token: str


class View:
    """What a page needs of its request. Made anew for each."""

    def __init__(self, request: Request[Any, Any, Any], zone: ZoneInfo, currency: str) -> None:
        self.request = request
        # None before a route is found.
        self.session = cast("dict[str, Any]", request.scope.get("session") or {})
        chosen = str(self.session.get("language", ""))
        language = chosen if chosen in LANGUAGES else negotiated(request.headers.get("accept-language", ""))
        self.reader = Reader(language, zone, currency)
        by, token = self.session.get("by"), self.session.get("token")
        self.operator = Operator(str(by), str(token)) if by and token else None

    @property
    def has_forms(self) -> bool:
        """Whether forms of this page can be sent: not where their own check has failed."""
        return "session" in self.request.scope

    @property
    def token(self) -> str:
        """The operator's, or an empty one."""
        return self.operator.token if self.operator else ""

    @property
    def is_part(self) -> bool:
        """Whether a script asks for a piece of a page instead of following a link."""
        return "hx-request" in self.request.headers

    @property
    def here(self) -> str:
        """The address of this page, to come back to; the answer to a form has none."""
        url = self.request.url
        if self.request.method != "GET":
            return "/"
        return url.path + (f"?{url.query}" if url.query else "")

    def page(self, name: str, status: int = 200, **context: Any) -> Template:
        """The page of this template."""
        return Template(template_name=f"{name}.html", context=self._own | context, status_code=status)

    def part(self, name: str, **context: Any) -> str:
        """The HTML of this template, for a stream: there are no forms in it."""
        engine = cast("Any", self.request.app.template_engine)
        return str(engine.get_template(f"{name}.html").render(**self._own, **context))

    @property
    def _own(self) -> dict[str, Any]:
        return {"view": self, "reader": self.reader, "_": self.reader.text, "languages": LANGUAGES}

    def back(self, path: str, **query: Any) -> Redirect:
        """To another page, as after a form (RFC 9110, 15.4.4)."""
        return Redirect(address(path, **query), status_code=303)

    async def form(self) -> dict[str, str]:
        """The fields that were sent, each once, cut where they are too long."""
        form = await self.request.form()
        return {name: str(value).strip()[:MAX_FIELD] for name, value in form.items()}


def address(path: str, **query: Any) -> str:
    """A path of the console with the fields that have a value."""
    given = {name: value for name, value in query.items() if value not in (None, "", False)}
    return f"{path}?{urlencode(given)}" if given else path


def local(target: str) -> str:
    """This address if it is one of the console's own, else the first page: no form leads elsewhere."""
    is_own = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if is_own and target.isprintable() else "/"


def maker(settings: Settings) -> Callable[[Request[Any, Any, Any]], View]:
    """Makes the views of a clinic. Raises `Misconfigured` where its zone is not known."""
    try:
        zone = ZoneInfo(settings.time_zone)
    except (KeyError, ValueError, OSError) as error:
        raise Misconfigured(
            f"CLINIC_TIME_ZONE={settings.time_zone} is not a time zone: write it like America/Sao_Paulo"
        ) from error

    def view(request: Request[Any, Any, Any]) -> View:
        return View(request, zone, settings.currency)

    return view
