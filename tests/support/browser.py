"""A real browser that sees nothing but this machine, and keeps whatever goes wrong in its pages."""

import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Request,
    async_playwright,
    expect,
)

PICTURES: Final = Path(__file__).parents[2] / "var" / "pictures"
SERIOUS: Final = {"serious", "critical"}
REPLACED: Final = "Execution context was destroyed"
WAIT: Final = 60_000.0
"""Milliseconds that a page has for whatever is awaited in it; only a failure takes them all."""
# Names are not looked up: what a page wants from elsewhere fails, whatever the network is like.
ARGUMENTS: Final = (
    "--no-sandbox",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def require_chromium() -> str:
    """Skip the test without it; in CI the test fails: there, nothing may be left out."""
    if found := shutil.which("chromium"):
        return found
    reason = "needs Chromium (Debian: apt-get install chromium)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The system's."""
    path = require_chromium()
    expect.set_options(timeout=WAIT)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()


class Visits:
    """Visitors of one site in a test: each has cookies of their own, and pages that must do nothing wrong."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser, self._url = browser, url
        self._contexts: list[BrowserContext] = []
        self._expected: list[str] = []
        self.problems: list[str] = []

    async def open(self, path: str = "/", **options: Any) -> Page:
        """The page at this path, of somebody new. The options are those of a browser's context."""
        context = await self._browser.new_context(base_url=self._url, **options)
        context.set_default_timeout(WAIT)
        self._contexts.append(context)
        context.on("request", self._requested)
        context.on("console", self._said)
        context.on("weberror", lambda error: self.problems.append(f"error: {error.error}"))
        page = await context.new_page()
        await page.goto(path)
        return page

    def expect(self, problem: str) -> None:
        """That this is said in the browser's console is what the test is about: it must be."""
        self._expected.append(problem)

    def wrong(self) -> list[str]:
        """What went wrong although nobody expected it, and what was expected and did not."""
        unforeseen = [each for each in self.problems if not any(word in each for word in self._expected)]
        return [*unforeseen, *(f"never seen: {word}" for word in self.missing())]

    def missing(self) -> list[str]:
        """What is expected and not said yet: the browser does so some time after the page has changed."""
        return [word for word in self._expected if not any(word in each for each in self.problems)]

    async def keep_pictures(self, name: str) -> None:
        """What each page shows now, in var/pictures."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        pages = [page for context in self._contexts for page in context.pages]
        for number, page in enumerate(pages):
            plain = re.sub(r"\W+", "-", name).strip("-")
            await page.screenshot(path=PICTURES / f"failed-{plain}-{number}.png", full_page=True)

    async def close(self) -> None:
        for context in self._contexts:
            await context.close()

    def _requested(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in {"data", "blob"} and parts.hostname != "127.0.0.1":
            self.problems.append(f"request: {request.url}")

    def _said(self, message: ConsoleMessage) -> None:
        # A report of the policy is an error, too.
        if message.type in {"error", "warning"}:
            self.problems.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")


async def asked(page: Page, expression: str, argument: object = None) -> Any:
    """What a script in the page answers; where another page just takes its place, that one is asked."""
    while True:
        try:
            return await page.evaluate(expression, argument)
        except Error as error:
            if REPLACED not in error.message:
                raise
            await page.wait_for_load_state()


async def width(page: Page) -> int:
    """CSS pixels that the page's content needs: wider than its window, and it scrolls sideways."""
    return int(await asked(page, "document.documentElement.scrollWidth"))


async def violations(page: Page) -> list[str]:
    """What axe finds that is serious or worse."""
    results = await Axe().run(page, options={"resultTypes": ["violations"]})
    return [
        f"{each['id']} {node['html'][:200]}"
        for each in results.response["violations"]
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]
