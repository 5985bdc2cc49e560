"""The stack without servers: one process of each service, SQLite's files in a folder, and an event log that
may be replaced.
"""

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from support.processes import eventually

from campaign.failpoints import Control
from campaign.messages import Letter
from campaign.nemesis import UP_TIMEOUT, Action, Hit
from campaign.plan import Fault, Options
from campaign.stacks import Stack, services
from campaign.supervisor import Supervisor
from clinic.adapters.sqlite.file import read_only

DRAINED_TIMEOUT = 8.0
EMPTY: Final[Mapping[str, str]] = {}


class Embedded(Stack):
    """One process of each service, and SQLite's files in a folder."""

    def __init__(self, folder: Path, options: Options, more: Mapping[str, str] = EMPTY) -> None:
        self.data = folder / "data"
        self.control = Control(folder / "points")
        settings = {"CLINIC_DATA_DIR": str(self.data), **more}
        self.services = {
            context: services(folder, context, 1, settings, options)
            for context in ("appointment", "financial")
        }

    def unacknowledged(self) -> int:
        with suppress(sqlite3.OperationalError):  # killed before it had made its tables
            return self._read_after()
        return 0

    def _read_after(self) -> int:
        with (
            closing(read_only(self.data / "events.db")) as log,
            closing(read_only(self.data / "events.financial.db")) as kept,
        ):
            (id_,) = log.execute("SELECT id FROM log").fetchone()
            known, place = kept.execute("SELECT log, seq FROM place").fetchone()
            return int(
                log.execute(
                    "SELECT count(*) FROM events WHERE seq > ?", (place if known == id_ else 0,)
                ).fetchone()[0]
            )

    def _remove_log(self) -> None:
        for path in self.data.glob("events.db*"):
            if path.suffix != ".lock":
                path.unlink(missing_ok=True)  # SQLite removes its own when the last connection closes

    def dead_letters(self) -> list[Letter]:
        with closing(read_only(self.data / "financial.db")) as kept:
            return [
                Letter(*row)
                for row in kept.execute("SELECT message_id, length, sha256, reason FROM dead_letters")
            ]

    def actions(self, supervisors: Mapping[str, list[Supervisor]]) -> Mapping[str, Action]:
        (supervisor,) = supervisors["appointment"]

        async def replace(_fault: Fault) -> Hit | None:
            """By the README's rules: what the log holds is charged, and its service is stopped."""
            await supervisor.back(within=UP_TIMEOUT)  # else nobody would ever be served between two of these
            async with supervisor.kept_down():
                with suppress(AssertionError):
                    await eventually(self._is_drained, within=DRAINED_TIMEOUT, every=0.05)
                    self._remove_log()
                    return Hit("events.db")
            return None

        return {"replace": replace}

    async def _is_drained(self) -> bool:
        return await asyncio.to_thread(self.unacknowledged) == 0
