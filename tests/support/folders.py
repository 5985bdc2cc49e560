"""Both contexts' data in a folder, and the command beside them: each call is a process of its own, so to
say.
"""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from clinic.domain.appointment.model import Appointment
from clinic.domain.financial.model import Charge
from clinic.domain.financial.pricing import POLICIES
from clinic.domain.messaging.messages import PublishResult, Received
from clinic.entrypoints.cli import main as cli
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.settings import Settings
from clinic.testing.builders import TWO_O_CLOCK, an_origin, opened

Work = Callable[[AppointmentContainer, FinancialContainer], Awaitable[Any]]


class Folder:
    """What the services would have written, long ago."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capsys = capsys
        self.run(_nothing)

    def run(self, work: Work) -> Any:
        async def opened_for_it() -> Any:
            its = Settings(data_dir=self.path)
            appointment, financial = AppointmentContainer(settings=its), FinancialContainer(settings=its)
            async with opened(appointment.store().resource), opened(financial.store().resource):
                return await work(appointment, financial)

        return asyncio.run(opened_for_it())

    def finish(self, appointment: Appointment, position: str = "log/1") -> None:
        """Finished and published there at two o'clock."""

        async def finished(its: AppointmentContainer, _: FinancialContainer) -> None:
            await its.appointments().add(replace(appointment, end=TWO_O_CLOCK))
            await its.republish_finished()(appointment.id)
            (claimed,) = await its.outbox().claim(1)
            await its.outbox().confirm([PublishResult(claimed.message, position, TWO_O_CLOCK)])

        self.run(finished)

    def charge(self, appointment: Appointment, **changes: Any) -> None:
        """Charged at two o'clock, from the event at log/1."""
        event = replace(appointment, end=TWO_O_CLOCK).finished_event
        assert event
        charge = Charge.for_finished(Received(event, an_origin()), POLICIES["hours-begun"], TWO_O_CLOCK)
        self.run(lambda _, financial: financial.charges().add([replace(charge, **changes)]))

    def command(self, *words: str, code: int = 0) -> str:
        """What it prints. It must end with this exit code, and say nothing else."""
        self._capsys.readouterr()
        ended = cli.main(words)
        printed = self._capsys.readouterr()
        assert ended == code, printed
        assert bool(printed.err) == (code == 1), printed
        return printed.err if code == 1 else printed.out

    def json(self, *words: str, code: int = 0) -> list[Any]:
        """The documents that it prints for a machine, their amounts as they are written."""
        return [
            json.loads(line, parse_float=Decimal)
            for line in self.command(*words, "--json", code=code).splitlines()
        ]


async def _nothing(_appointment: AppointmentContainer, _financial: FinancialContainer) -> None:
    return


@contextmanager
def a_folder(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Folder]:
    """Empty, and where the command finds it, on a terminal of eighty columns."""
    monkeypatch.chdir(path)
    for name, value in {"CLINIC_DATA_DIR": str(path / "data"), "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    configured = structlog.get_config()
    yield Folder(path / "data", capsys)
    structlog.configure(**configured)


def copied(source: Path, target: Path) -> None:
    """As `sqlite3 TARGET ".restore SOURCE"` does: into the same file."""
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)
