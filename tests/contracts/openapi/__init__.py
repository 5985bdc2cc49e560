"""What both services answer, as documents: kept here, so that a review sees what changes in them."""

import asyncio
import json
from pathlib import Path
from typing import Final

from support.apps import Clinic

from clinic.entrypoints.settings import Settings

FOLDER: Final = Path(__file__).parent
TOKEN: Final = "0123456789abcdef"  # noqa: S105 — of no service; with one, the paths for an operator are there


async def documents() -> dict[Path, str]:
    """Today's documents, each beside the file that keeps it."""
    its = Settings(store="memory", transport="memory", operator_token=TOKEN)
    async with Clinic(its).running() as clinic:
        return {
            FOLDER / f"{name}.json": json.dumps((await client.get("/openapi.json")).json(), indent=1) + "\n"
            for name, client in (("appointment", clinic.appointments), ("financial", clinic.charges))
        }


def rewrite() -> None:
    """Keep today's documents."""
    for file, text in asyncio.run(documents()).items():
        file.write_text(text)
