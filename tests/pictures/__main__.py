"""Pictures of the console: two for the READMEs; each page in both languages, light, dark, wide and narrow.

The same people do the same each time; ids and times are those of the run.
"""

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final, Literal
from uuid import NAMESPACE_OID, uuid5

import httpx
from PIL import Image
from playwright.async_api import Browser, Page
from support.browser import PICTURES, chromium
from support.consoles import NARROW, TOKEN, WIDE, WithConsole
from support.processes import eventually

README: Final = Path(__file__).parents[2] / "docs" / "pictures"
PHYSICIANS: Final = [str(uuid5(NAMESPACE_OID, f"physician {number}")) for number in range(3)]
PATIENTS: Final = [str(uuid5(NAMESPACE_OID, f"patient {number}")) for number in range(7)]
FINISHED, IN_ROOM = 24, 3
COLORS: Final = 64
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
PAGES: Final = {
    "desk": "/",
    "flow": "/flow",
    "letters": "/letters/",
    "audit": "/audit/",
    "history": "/history/",
    "sign-in": "/sign-in",
    "where": "/where?q=x",
}


async def visited(clinic: WithConsole) -> list[str]:
    """What happens in the clinic: the ids of its appointments."""
    async with httpx.AsyncClient(trust_env=False, timeout=40) as http:
        ids = []
        for number in range(FINISHED + IN_ROOM):
            people = {"physician_id": PHYSICIANS[number % 3], "patient_id": PATIENTS[number % 7]}
            ids.append(str((await http.post(f"{clinic.appointment.url}/", json=people)).json()["id"]))
            if number < FINISHED:
                await http.post(f"{clinic.appointment.url}/{ids[-1]}/")
                await http.get(f"{clinic.financial.url}/{ids[-1]}/", headers={"Prefer": "wait=20"})
        with closing(sqlite3.connect(clinic.data / "events.db")) as log, log:
            log.execute(
                "INSERT INTO events (key, headers, value, published_at) "
                "SELECT key, headers, ?, published_at FROM events ORDER BY seq DESC LIMIT 3",
                (b"{}",),
            )
        operator = {"Authorization": f"Bearer {TOKEN}"}

        async def are_dead() -> bool:
            found = await http.get(f"{clinic.financial.url}/dead-letters/", headers=operator)
            letters = found.json()["items"]
            if len(letters) < 3:
                return False
            body = {"position": letters[0]["position"], "by": "Anna", "reason": "sent by a load test"}
            await http.post(f"{clinic.financial.url}/dead-letters/discard/", json=body, headers=operator)
            return True

        await eventually(are_dead)
    return ids


async def signed_in(browser: Browser, clinic: WithConsole, language: str) -> Page:
    context = await browser.new_context(base_url=clinic.console.url, locale=language, viewport=WIDE)
    page = await context.new_page()
    await page.goto("/sign-in")
    await page.locator("[name=by]").fill("Anna")
    await page.locator("[name=token]").fill(TOKEN)
    await page.locator("main button.main").click()
    return page


async def take(page: Page, path: Path, *, whole: bool) -> None:
    """A small file: few colours are enough for text."""
    await page.screenshot(path=path, full_page=whole)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)


async def main() -> None:
    README.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"CLINIC_CURRENCY": "BRL", "CLINIC_TIME_ZONE": "America/Sao_Paulo"}
        clinic = WithConsole(Path(folder), settings)
        try:
            await clinic.started()
            ids = await visited(clinic)
            async with chromium() as browser:
                await pictures(browser, clinic, PAGES | {"appointment": f"/appointments/{ids[0]}"})
        finally:
            for service in clinic.all:
                service.clean_up()


async def pictures(browser: Browser, clinic: WithConsole, pages: dict[str, str]) -> None:
    for language in ("en-US", "pt-BR"):
        page = await signed_in(browser, clinic, language)
        for name, path in pages.items():
            await page.goto(path)
            for scheme in SCHEMES:
                await page.emulate_media(color_scheme=scheme)
                for shape, size in (("wide", WIDE), ("narrow", NARROW)):
                    await page.set_viewport_size(size)
                    await take(page, PICTURES / f"{name}-{scheme}-{shape}-{language[:2]}.png", whole=True)
            if language == "en-US" and name in {"desk", "flow"}:
                await page.emulate_media(color_scheme="light")
                await page.set_viewport_size(WIDE)
                await take(page, README / f"{name}.png", whole=False)


asyncio.run(main())
