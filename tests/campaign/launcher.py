"""A service as it ships, with the campaign's wrappers around its ports: `python -m campaign.launcher FOLDER NAME DEFECT run …`.

From the inside out: the adapter, the post that slips strangers' messages in, the fault points, a planted defect if one is
asked for, and a witness of what the relay is handed.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from dependency_injector.providers import Object, Selector, Singleton

from campaign.defects import DEFECTS, Defect
from campaign.points import AtPoints, Points
from campaign.witness import Witness, WitnessOfClaims, WitnessOfPublications
from clinic.domain.errors import ClinicError
from clinic.domain.messaging import Message, Published
from clinic.entrypoints import cli
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer, now

NO_LIMIT: Final = 4_294_967_294
PORTS: Final = (
    (AppointmentContainer, "appointments", "file", {"add": "add", "save": "save", "claim": "hand-over", "confirm": "confirm"}),
    (AppointmentContainer, "publisher", "log", {"publish": "publish"}),
    (FinancialContainer, "subscription", "place", {"receive": "delivery", "acknowledge": "acknowledge"}),
    (FinancialContainer, "charges", "file", {"add": "charge"}),
    (FinancialContainer, "dead_letters", "file", {"keep": "dead-letter"}),
)
"""Container, its provider, the file that SQLite keeps behind it, and the point of each call."""

_messages = msgspec.json.Decoder(list[Message])
_running: set[asyncio.Task[None]] = set()


class WithPost:
    """A publisher that also publishes what others have put into its post."""

    def __init__(self, publisher: Any, folder: Path) -> None:
        self._publisher, self._folder = publisher, folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._publisher, name)

    async def publish(self, batch: Sequence[Message]) -> Sequence[Published]:
        for letter in sorted((self._folder / "post").glob("[0-9]*")):
            with suppress(ClinicError, FileNotFoundError):  # it stays in the post, or another instance was quicker
                await self._publisher.publish(_messages.decode(letter.read_bytes()))
                letter.rename(self._folder / "sent" / letter.name)
        published: Sequence[Published] = await self._publisher.publish(batch)
        return published


def stepped(clock: Path) -> datetime:
    """The time, moved by the seconds in that file."""
    try:
        return now() + timedelta(seconds=float(clock.read_text()))
    except FileNotFoundError:
        return now()


async def fill(file: Any, seconds: float) -> None:
    """For so long, the file cannot grow: SQLite then answers as on a full disk."""

    async def empty() -> None:
        await asyncio.sleep(seconds)
        with suppress(ClinicError):  # it is closed by now
            await file.write(lambda connection: connection.execute(f"PRAGMA max_page_count={NO_LIMIT}"))

    await file.write(lambda connection: connection.execute("PRAGMA max_page_count=1"))
    task = asyncio.create_task(empty())
    _running.add(task)
    task.add_done_callback(_running.discard)


def main() -> int:
    """Put the wrappers in, wait for the word, then run the command."""
    folder, service, defect = Path(sys.argv[1]), sys.argv[2], DEFECTS.get(sys.argv[3])
    points, witness = Points(folder, service), Witness(folder / "held" / service)
    for container, context in ((AppointmentContainer, "appointment"), (FinancialContainer, "financial")):
        container.clock.override(Object(partial(stepped, folder / f"clock.{context}")))
    for container, name, file, calls in PORTS:
        _wrap(container, name, file, partial(_wrapped, name, calls, points, defect, witness))
    return cli.main(sys.argv[4:]) if sys.stdin.readline() else 0  # at the end of the campaign nobody gives the word


def _wrapped(name: str, calls: dict[str, str], points: Points, defect: Defect | None, witness: Witness, adapter: Any, file: Any) -> Any:
    if name == "publisher":
        adapter = WithPost(adapter, points.folder)
    adapter = AtPoints(adapter, calls, points, partial(fill, file))
    if defect is not None and defect.port == name:
        adapter = defect.adapter(adapter, file)
    if name == "appointments":
        return WitnessOfClaims(adapter, witness)
    return WitnessOfPublications(adapter, witness) if name == "publisher" else adapter


def _wrap(container: Any, name: str, file: str, wrap: Callable[[Any, Any], Any]) -> None:
    shipped = getattr(container, name)
    shipped.override(Singleton(wrap, Selector(shipped.selector, **shipped.providers), getattr(container, file)))


if __name__ == "__main__":
    sys.exit(main())
