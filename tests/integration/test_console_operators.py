"""The console in a real browser, for whoever is on call: dead letters, the flow, the history."""

import asyncio
import json
import os
import re
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
from playwright.async_api import Page, expect
from support.browser import Visits, violations, width
from support.consoles import NARROW, TOKEN, WIDE, WithConsole, browser, clinic, sign_in, visits
from support.deployments import charged, finish
from support.processes import eventually

from clinic.domain.events import FINISHED_V1

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY: Final = int(os.environ.get("CLINIC_TEST_LETTERS", "2500"))
"""More than a page, a batch and a shown list of outcomes hold. The long form: CLINIC_TEST_LETTERS=10000."""
POISON: Final = re.search(
    r"^python3 -c .*events\.db.*$",
    (Path(__file__).parents[2] / "docs" / "console.md").read_text(),
    re.MULTILINE,
)
LANGUAGES: Final = {"en": "en-GB", "pt": "pt-BR"}
PAGES: Final = ("/letters/", "/letters/?state=all", "/audit/", "/history/", "/flow", "/")
"""For an operator."""


async def groups(clinic: WithConsole) -> dict[str, int]:
    """How many letters wait, by group."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as http:
        answer = (await http.get(f"{clinic.financial.url}/dead-letters/groups/")).raise_for_status()
    return {each["group"]: each["waiting"] for each in answer.json()["items"]}


async def poison(clinic: WithConsole) -> None:
    """As the documentation says it; return once it is a dead letter."""
    assert POISON, "docs/console.md lost its command"
    before = sum((await groups(clinic)).values())
    command = POISON[0].replace("var/events.db", str(clinic.data / "events.db"))
    await asyncio.to_thread(subprocess.run, ["sh", "-c", command], check=True)

    async def is_there() -> bool:
        return sum((await groups(clinic)).values()) == before + 1

    await eventually(is_there)


async def test_a_poison_event_is_found_previewed_and_discarded_and_it_is_said_by_whom(
    visits: Visits, clinic: WithConsole
) -> None:
    await poison(clinic)
    page = await visits.open()
    await sign_in(page, by="Anna")
    await page.get_by_role("link", name="Dead letters").click()
    await page.locator("table.letters tbody a").first.click()
    await expect(page.locator("p.problem")).to_contain_text("cannot be read")
    await expect(page.locator("pre").first).to_be_hidden()
    await page.get_by_role("button", name="Replay …").click()
    await expect(page.locator("main")).to_contain_text("fails again")
    await page.go_back()
    await page.get_by_role("button", name="Discard …").click()
    await expect(page.locator("main")).to_contain_text("Nothing has changed yet")
    await page.locator("textarea").fill("made by a person who tries this")
    await page.get_by_role("button", name="Discard 1").click()
    await expect(page.get_by_role("status")).to_contain_text("discarded: 1")
    await page.get_by_role("link", name="To the history").click()
    row = page.locator("tbody tr").first
    await expect(row).to_contain_text("Anna")
    await expect(row).to_contain_text("made by a person who tries this")


@pytest.mark.timeout(500)
async def test_a_flood_of_dead_letters_is_discarded_and_every_one_is_counted(
    visits: Visits, clinic: WithConsole
) -> None:
    await poison(clinic)
    add_letters(clinic, MANY - 1)

    async def are_there() -> bool:
        return sum((await groups(clinic)).values()) == MANY

    await eventually(are_there)
    page = await visits.open("/")
    await sign_in(page, by="Anna")
    await page.goto("/letters/")
    assert await page.locator("table.letters tbody tr").count() <= 100
    await page.get_by_role("button", name=f"Discard all {MANY:,} …").click()
    await page.locator("textarea").fill("a flood")
    await page.get_by_role("button", name=f"Discard {MANY:,}").click()
    await expect(page.get_by_role("link", name="To the history")).to_be_visible(timeout=240_000)
    await expect(page.get_by_role("status")).to_contain_text(f"discarded: {MANY:,}")
    assert await page.locator("#run tr").count() <= 1_100
    assert sum((await groups(clinic)).values()) == 0


def add_letters(clinic: WithConsole, count: int) -> None:
    """Events that cannot be read; markup is in all of them."""
    headers = json.dumps([["ce_type", FINISHED_V1]]).encode()
    value = json.dumps({"room": "<script>alert(1)</script>"}).encode()
    with closing(sqlite3.connect(clinic.data / "events.db")) as log, log:
        log.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "INSERT INTO events (key, headers, value, published_at) SELECT 'key', ?, ?, ? FROM n",
            (count, headers, value, int(time.time() * 1000)),
        )


async def test_the_flow_moves_while_somebody_looks_and_can_be_paused(
    visits: Visits, clinic: WithConsole
) -> None:
    page = await visits.open("/flow")
    await expect(page.locator("#live")).to_contain_text("Live")
    async with httpx.AsyncClient(trust_env=False, timeout=40) as http:
        first = (await finish(http, clinic))["id"]
        await expect(flow_row(page, first)).to_contain_text("charged")
        await page.get_by_role("button", name="Pause").click()
        await expect(page.locator("#live")).to_have_text("Paused.")
        second = (await finish(http, clinic))["id"]
        await charged(http, clinic, {second})
        await expect(flow_row(page, second)).to_have_count(0)
        await page.get_by_role("button", name="Pause").click()
        await expect(flow_row(page, second)).to_contain_text("charged")


def flow_row(page: Page, its_id: str) -> Any:
    return page.locator("#flow tbody tr").filter(has=page.get_by_title(its_id))


async def test_the_flow_is_a_snapshot_without_scripts(visits: Visits, clinic: WithConsole) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        its_id = (await finish(http, clinic))["id"]
        await charged(http, clinic, {its_id})
    page = await visits.open("/flow", java_script_enabled=False)

    async def is_shown() -> bool:  # within the second that one look is for all
        await page.get_by_role("link", name="Look again").click()
        return bool(await flow_row(page, its_id).filter(has_text="charged").count())

    await eventually(is_shown, every=0.2)


async def test_the_search_finds_an_appointment_from_every_page(visits: Visits, clinic: WithConsole) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        its_id = (await finish(http, clinic))["id"]
        await charged(http, clinic, {its_id})
    visits.expect("status of 422")
    page = await visits.open("/flow")
    await page.locator("#live").wait_for()
    await page.keyboard.press("/")
    await page.keyboard.type(its_id)
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_contain_text("Done: charged")
    await page.locator("#search").fill("<img src=x onerror=alert(1)>")
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_contain_text("<img src=x onerror=alert(1)>")


@pytest.mark.parametrize("language", LANGUAGES)
async def test_every_page_for_operators_fits_a_phone_and_can_be_read_by_all(
    visits: Visits, clinic: WithConsole, language: str
) -> None:
    """Light and dark, narrow and wide, the other way round in the other language; axe looks at each."""
    visits.expect("status of 503")  # the audit is off, and its page says so
    await poison(clinic)
    page = await visits.open(locale=LANGUAGES[language])
    await sign_in(page, by=str(uuid4()))
    await page.goto("/letters/")
    letter = str(await page.locator("table.letters tbody a").first.get_attribute("href"))
    found: list[str] = []
    for path in (*PAGES, letter):
        for scheme in ("light", "dark"):
            size = NARROW if (scheme == "light") == (language == "en") else WIDE
            await page.emulate_media(color_scheme=scheme)
            await page.set_viewport_size(size)
            await page.goto(path)
            if await width(page) > size["width"]:
                found.append(f"{path} is {await width(page)} wide")
            found += [f"{path} {scheme} {size['width']}: {each}" for each in await violations(page)]
    assert not found, "\n".join(found)
