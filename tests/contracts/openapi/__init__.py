"""What both services and the audit answer, as documents: kept here, so that a review sees what changes."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast

import httpx
from support.apps import Clinic

from clinic.entrypoints.service import Lifecycle
from clinic.entrypoints.settings import Settings
from clinic.entrypoints.telemetry import LoggingTelemetry
from clinic.entrypoints.watcher.main import watcher
from clinic.entrypoints.watcher.standing import Plan

FOLDER: Final = Path(__file__).parent
TOKEN: Final = "0123456789abcdef"  # noqa: S105 — of no service; with one, the paths for an operator are there


async def documents() -> dict[Path, str]:
    """Today's documents, each beside the file that keeps it."""
    its = Settings(store="memory", transport="memory", operator_token=TOKEN)
    telemetry = LoggingTelemetry("audit")
    audit = watcher(its, Plan(every=60, grace=timedelta()), telemetry, Lifecycle(telemetry))
    asking = httpx.AsyncClient(transport=httpx.ASGITransport(cast("Any", audit)), base_url="http://audit")
    async with asking, Clinic(its).running() as clinic:
        clients = {"appointment": clinic.appointments, "financial": clinic.charges, "audit": asking}
        return {
            FOLDER / f"{name}.json": json.dumps((await client.get("/openapi.json")).json(), indent=1) + "\n"
            for name, client in clients.items()
        }


def rewrite() -> None:
    """Keep today's documents."""
    for file, text in asyncio.run(documents()).items():
        file.write_text(text)
