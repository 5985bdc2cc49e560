"""Both services and the console in front of them, as processes; and what tests of its pages share."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, ViewportSize

from support.browser import Visits, chromium
from support.ports import free_ports
from support.processes import PROGRAM, Pair, Process, Service, eventually

TOKEN: Final = "a-token-of-the-operators"  # noqa: S105 — of these tests

NARROW: Final[ViewportSize] = {"width": 360, "height": 740}
WIDE: Final[ViewportSize] = {"width": 1200, "height": 800}


class WithConsole(Pair):
    """A pair, and pages in front of it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        (port,) = free_ports(1)
        super().__init__(
            folder,
            {
                "CLINIC_CONSOLE_PORT": str(port),
                "CLINIC_CONSOLE_SECRET": "a-secret-of-the-console",
                "CLINIC_OPERATOR_TOKEN": TOKEN,
                **environment,
            },
        )
        self.console = Service(
            "console", (*PROGRAM, "run", "console"), self.environment, folder, f"http://127.0.0.1:{port}"
        )

    @property
    def all(self) -> tuple[Service, ...]:
        return *self.services, self.console

    async def started(self) -> None:
        """Start all three, and return once they are ready."""
        self.console.start()
        await super().started()
        await self.console.ready()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clinic(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WithConsole]:  # noqa: ARG001 — without a browser, nothing starts
    made = WithConsole(tmp_path_factory.mktemp("console"), {})
    try:
        await made.started()
        yield made
    finally:
        for service in made.all:
            service.clean_up()


@pytest_asyncio.fixture(loop_scope="module")
async def visits(
    browser: Browser,
    clinic: WithConsole,
    request: pytest.FixtureRequest,
    logged: list[Process],
    has_failed: Callable[[], bool],
) -> AsyncIterator[Visits]:
    """Fails the test for whatever goes wrong in the browser, and keeps a picture of a test that fails."""
    logged += clinic.all
    made = Visits(browser, clinic.console.url)
    yield made
    if not has_failed():
        with suppress(AssertionError):  # what is still missing then is said below

            async def is_all_said() -> bool:
                return not made.missing()

            await eventually(is_all_said)
    wrong = made.wrong()
    if wrong or has_failed():
        await made.keep_pictures(request.node.name)
    await made.close()
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def physician() -> str:
    return str(uuid4())


async def start(page: Page, physician: str, button: str = "Start", patient: str = "") -> None:
    """Fill the form and send it; a patient that is not given is a new one."""
    form = page.locator("form[action='/appointments/']")
    await form.locator("[name=physician_id]").fill(physician)
    await form.locator("[name=patient_id]").fill(patient or str(uuid4()))
    await form.get_by_role("button", name=button).click()


async def started(clinic: WithConsole, physician: str) -> list[Any]:
    """The appointments of this physician."""
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{clinic.appointment.url}/", params={"physician_id": physician})
        return list(answer.raise_for_status().json()["items"])


def rows(page: Page, physician: str) -> Locator:
    """Those of the page's first list with this physician: who is in the room."""
    return page.locator("section[aria-labelledby=room] tbody tr").filter(has=page.get_by_title(physician))


def listed(page: Page, physician: str) -> Locator:
    return page.locator("section[aria-labelledby=list] tbody tr").filter(has=page.get_by_title(physician))


async def sign_in(page: Page, token: str = TOKEN, by: str = "Anna") -> None:
    await page.goto("/sign-in")
    await page.locator("[name=by]").fill(by)
    await page.locator("[name=token]").fill(token)
    await page.locator("main button.main").click()
