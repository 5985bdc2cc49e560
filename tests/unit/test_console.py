"""The console's promises about its own size, its texts, and what its answers carry."""

import gzip
import re
import string
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, cast
from zoneinfo import ZoneInfo

import httpx
import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from litestar import Request
from support.apps import Clinic, client_of, settings
from support.pages import Pages as SignedPages

from clinic.entrypoints.console.app import create_app
from clinic.entrypoints.console.client import Service, Services
from clinic.entrypoints.console.desk import PAGE_SIZE
from clinic.entrypoints.console.languages import CATALOGUES, LANGUAGES
from clinic.entrypoints.console.view import View
from clinic.entrypoints.service import Lifecycle
from clinic.entrypoints.telemetry import LoggingTelemetry

CONSOLE: Final = CATALOGUES.parent
ROOT: Final = Path(__file__).parents[2]
HTMX: Final = "28fae7bbe8e8142b702debb9d5234a9a436d9435a4b5165b195aa1a7ed840d25"
MAX_LINES, MAX_STYLE, MAX_SCRIPT = 2_585, 10_000, 4_000
MAX_FIRST_VISIT, MAX_FIRST_VISIT_SENT = 120_000, 45_000
FILES: Final = ("console.css", "console.js", "htmx.js", "icon.svg")
FILE: Final = re.compile(r'(?:src|href)="(/files/[^"]+)"')


class Pages:
    """The console in front of both services, in this process and without a network; the audit is away."""

    def __init__(self, clinic: Clinic, client: httpx.AsyncClient) -> None:
        self.clinic, self.client = clinic, client

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers=headers)

    async def weight(self, path: str) -> tuple[int, int]:
        """Bytes of the answer as it is, and as they are sent to a browser."""
        async with self.client.stream("GET", path, headers={"Accept-Encoding": "gzip, br"}) as answer:
            assert answer.status_code == 200
            sent = b"".join([each async for each in answer.aiter_raw()])
            is_small = "content-encoding" not in answer.headers
        assert len(sent) < 500 if is_small else answer.headers["content-encoding"] == "gzip"
        return len(sent if is_small else gzip.decompress(sent)), len(sent)


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[Pages]:
    async with Clinic(settings("memory", tmp_path)).running() as clinic:
        transports = [httpx.ASGITransport(cast("Any", app)) for app in clinic.apps]
        telemetry = LoggingTelemetry("console")
        services = Services(
            Service("appointment", "http://appointment", transports[0]),
            Service("financial", "http://financial", transports[1]),
            Service("audit", "http://audit", httpx.MockTransport(_away)),
        )
        app = create_app(services, _view, b"a secret of sixteen", telemetry, Lifecycle(telemetry))
        async with client_of(app) as client:
            yield Pages(clinic, client)


def _away(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def _view(request: Request[Any, Any, Any]) -> View:
    return View(request, ZoneInfo("America/Sao_Paulo"), "BRL")


async def test_a_first_visit_to_a_full_desk_weighs_little(console: Pages) -> None:
    """Ten in the room, and a whole page of the list: all that a browser without anything at hand loads."""
    for number in range(PAGE_SIZE):
        started = await console.clinic.start()
        if number >= 10:
            await console.clinic.finish(started)
            await console.clinic.charged(started)
    files = FILE.findall((await console.get("/")).text)
    assert sorted(Path(name).name.partition("?")[0] for name in files) == sorted(FILES)

    weights = {path: await console.weight(path) for path in ["/", *files]}

    raw, sent = (sum(each) for each in zip(*weights.values(), strict=True))
    assert raw <= MAX_FIRST_VISIT, weights
    assert sent <= MAX_FIRST_VISIT_SENT, weights


async def test_a_file_is_asked_for_once_and_a_page_each_time(console: Pages) -> None:
    page = await console.get("/")
    assert page.headers["cache-control"] == "private, no-cache"
    for name in FILE.findall(page.text):
        answer = await console.get(name)
        assert answer.headers["cache-control"] == "max-age=31536000, immutable"
        assert "cookie" not in answer.headers.get("vary", "").lower()
        assert "set-cookie" not in answer.headers
        assert name.endswith(f"?{sha256(answer.content).hexdigest()[:12]}")


async def test_each_answer_has_the_strict_policy_and_each_page_nothing_inline(console: Pages) -> None:
    for path in (
        "/",
        "/sign-in",
        "/no-such-page",
        "/appointments/x/finish",
        "/health/live",
        "/files/console.js",
    ):
        answer = await console.get(path)
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; "), path
        assert answer.headers["x-content-type-options"] == "nosniff", path
    for template in CONSOLE.glob("templates/*.html"):
        text = template.read_text()
        assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?! src=)|\|\s*safe\b", text), template.name


def test_htmx_is_the_file_that_was_looked_at_and_its_licence_is_named() -> None:
    assert sha256((CONSOLE / "files" / "htmx.js").read_bytes()).hexdigest() == HTMX
    named = (ROOT / "docs" / "console.md").read_text()
    assert "[htmx](https://htmx.org) 4" in named
    assert "Zero-Clause BSD" in named
    assert "django-htmx (MIT)" in named


def test_the_console_stays_small() -> None:
    code = [*CONSOLE.rglob("*.py"), *CONSOLE.rglob("*.html")]
    lines = sum(len(file.read_text().splitlines()) for file in code)
    assert lines <= MAX_LINES, lines
    assert (CONSOLE / "files" / "console.css").stat().st_size <= MAX_STYLE
    own = [file for file in CONSOLE.glob("files/*.js") if file.name != "htmx.js"]
    assert sum(file.stat().st_size for file in own) <= MAX_SCRIPT


def _texts() -> set[str]:
    """Every text that the pages may show, by the extractor that `make languages` uses."""
    methods = [("**.py", "python"), ("**.html", "jinja2")]
    keywords: Any = {"_": None, "marked": None}
    found = extract_from_dir(CONSOLE, methods, {"**.html": {"silent": "false"}}, keywords=keywords)
    return {str(message) for _, _, message, _, _ in found}


def _catalogue(language: str) -> Catalog:
    with (CATALOGUES / f"{language}.po").open("rb") as file:
        return read_po(file, locale=language, abort_invalid=True)


TRANSLATED: Final = sorted(set(LANGUAGES) - {"en"})


@pytest.mark.parametrize("language", TRANSLATED)
def test_no_text_is_missing_and_none_is_left_over(language: str) -> None:
    translated = {str(each.id) for each in _catalogue(language) if each.id and each.string and not each.fuzzy}
    assert _texts() - translated == set(), "make languages, and translate these"
    assert translated - _texts() == set(), "make languages"
    assert not _catalogue(language).obsolete


@pytest.mark.parametrize("language", TRANSLATED)
def test_each_translation_fills_in_what_its_text_does(language: str) -> None:
    for each in _catalogue(language):
        if each.id:
            assert _fields(str(each.string)) == _fields(str(each.id)), each.id


def _fields(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("de", "en"),
        ("pt", "pt-BR"),
        ("pt-PT,en;q=0.9", "pt-BR"),
        ("de, en-US;q=0.7, pt-AO;q=0.6", "en"),
        ("en;q=0.5, pt-BR;q=0.8", "pt-BR"),
        ("pt-BR;q=x", "pt-BR"),
        ("*," * 1000, "en"),
    ],
)
async def test_a_page_is_in_the_language_that_its_reader_likes_best(
    console: Pages, header: str, language: str
) -> None:
    page = await console.get("/", **{"Accept-Language": header})
    assert f'<html lang="{language}">' in page.text


async def test_only_what_changes_the_session_sets_its_cookie(tmp_path: Path) -> None:
    """An answer that was under way during a sign-out would sign in again, and a file's would be kept."""
    async with SignedPages(tmp_path).running() as pages:
        before = dict(pages.browser.cookies)
        await pages.sign_in()
        assert dict(pages.browser.cookies) != before
        for path in ("/", "/flow", "/letters/", "/no-such-page", "/files/console.css"):
            answer = await pages.browser.get(path)
            assert "session=" not in answer.headers.get("set-cookie", ""), path
        answer = await pages.send("/sign-out", page="/")
        assert "session=" in answer.headers["set-cookie"]
        assert (await pages.browser.get("/history/")).headers["location"].startswith("/sign-in")


async def test_no_page_is_put_into_a_piece_of_one(tmp_path: Path) -> None:
    async with SignedPages(tmp_path).running() as pages:
        its_id = await pages.clinic.start()
        pages.appointment.is_cut = True
        part = {"HX-Request": "true"}
        answer = await pages.browser.get(f"/appointments/{its_id}/row", headers=part)
        assert (answer.status_code, answer.content) == (204, b"")
        answer = await pages.browser.get(f"/appointments/{its_id}/finish", headers=part)
        assert (answer.headers["hx-redirect"], answer.content) == (f"/appointments/{its_id}/finish", b"")
        answer = await pages.browser.post(f"/appointments/{its_id}/finish", headers=part)
        assert (answer.headers["hx-refresh"], answer.content) == ("true", b""), "its token is missing"


async def test_a_row_asks_for_its_charge_less_and_less_often_and_then_says_where_to_look(
    tmp_path: Path,
) -> None:
    async with SignedPages(tmp_path).running() as pages:
        its_id = await pages.clinic.start()
        await pages.clinic.finish(its_id)
        pages.financial.is_cut = True
        pauses, path = [], f"/appointments/{its_id}/row"
        while following := re.search(
            r'hx-get="([^"]+)" hx-trigger="every (\d+)ms"', (row := await pages.browser.get(path)).text
        ):
            assert "not known now" in row.text
            path, pause = following.groups()
            pauses.append(int(pause))
        assert pauses == sorted(pauses)
        assert pauses[-1] == 5000
        assert 20_000 < sum(pauses) < 60_000
        pages.financial.is_cut = False
        await pages.clinic.charged(its_id)
        assert "$200.00" in (await pages.browser.get(path)).text


@pytest.mark.parametrize("target", ["//evil", "/\\evil", "https://evil", "//[", "/\n", "", "evil"])
async def test_no_form_leads_elsewhere(target: str, console: Pages) -> None:
    answer = await console.client.get("/sign-in", params={"back": target})
    assert answer.status_code == 200
    assert 'name="back" value="/"' in answer.text
