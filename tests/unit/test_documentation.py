"""The pages that explain the services work with no internet: all that they load is served by the service
itself.
"""

from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.apps import Clinic, problem, settings


@pytest.fixture
async def clinic(tmp_path: Path) -> AsyncIterator[Clinic]:
    async with Clinic(settings("memory", tmp_path)).running() as clinic:
        yield clinic


class Page(HTMLParser):
    """What a page loads, and what of it a strict policy would refuse."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[tuple[str, str]] = []
        self.inline: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [(tag, value or "") for name, value in attrs if name in {"src", "href"}]
        self.inline += [name for name, _ in attrs if name == "style" or name.startswith("on")]
        is_inline = tag == "style" or (tag == "script" and "src" not in dict(attrs))
        self.inline += [tag] if is_inline else []


@pytest.mark.parametrize("path", ["/docs", "/docs/", "/redoc", "/redoc/"])
async def test_a_page_loads_nothing_from_elsewhere_and_all_it_loads_is_there(
    clinic: Clinic, path: str
) -> None:
    for client in (clinic.appointments, clinic.charges):
        answer = await client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "//" not in answer.text
        page = Page(answer.text)
        assert [tag for tag, _ in page.loads].count("script") >= 1
        for tag, address in page.loads:
            loaded = await client.get(address)
            assert loaded.status_code == 200, address
            assert loaded.content
            kind = loaded.headers["content-type"]
            assert ("javascript" in kind) if tag == "script" else kind.startswith(("text/css", "image/")), (
                address,
                kind,
            )


@pytest.mark.parametrize(("path", "starts"), [("/docs", "SwaggerUIBundle("), ("/redoc", "Redoc.init(")])
async def test_each_page_starts_its_viewer_on_the_services_own_document(
    clinic: Clinic, path: str, starts: str
) -> None:
    for client, title in ((clinic.appointments, "Appointments"), (clinic.charges, "Charges")):
        scripts = [at for tag, at in Page((await client.get(path)).text).loads if tag == "script"]
        start = (await client.get(scripts[-1])).text
        assert starts in start
        assert '"/openapi.json"' in start
        assert (await client.get("/openapi.json")).json()["info"]["title"] == title


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/events"])
async def test_a_page_has_nothing_inline_and_a_policy_that_would_refuse_it(clinic: Clinic, path: str) -> None:
    answer = await clinic.appointments.get(path)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert ("'unsafe-inline'" in policy) == (path == "/redoc")
    assert "script-src" not in policy
    assert Page(answer.text).inline == []


async def test_the_viewers_are_really_what_the_package_carries(clinic: Clinic) -> None:
    swagger = await clinic.appointments.get("/docs/files/swagger-ui-dist/swagger-ui-bundle.js")
    redoc = await clinic.appointments.get("/docs/files/redoc/bundles/redoc.standalone.js")
    assert b"SwaggerUIBundle" in swagger.content
    assert b"Redoc" in redoc.content


@pytest.mark.parametrize(
    "path",
    [
        "/docs/files",
        "/docs/files/",
        "/docs/files/nothing.js",
        "/docs/files/swagger-ui-dist",
        "/docs/files/redoc/",
        "/docs/files/..%2f..%2f..%2fetc/passwd",
        "/docs/files/%2e%2e/%2e%2e/%2e%2e/__init__.py",
        "/docs/openapi.json",
        "/redoc/x",
        "/swagger",
        "/elements",
        "/schema",
        "/openapi.yml",
    ],
)
async def test_beside_the_pages_there_is_a_problem_document_and_no_page(clinic: Clinic, path: str) -> None:
    problem(await clinic.appointments.get(path), 404)
