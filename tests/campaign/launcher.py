"""A service as it ships, with the campaign's wrappers around its ports: `python -m campaign.launcher FOLDER
NAME DEFECT run …`.

From the inside out: the adapter, what slips foreign messages in, the failpoints, a planted
defect if one is
asked for, and a witness of what the relay is handed.
"""

import asyncio
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
from dependency_injector.providers import Object, Singleton
from uuid_utils.compat import uuid7

from campaign.below import Below
from campaign.defects import DEFECTS, Defect
from campaign.failpoints import AtFailpoints, Failpoints
from campaign.witness import Witness, WitnessOfClaims, WitnessOfPublications
from clinic.domain.appointment.model import Appointment
from clinic.domain.appointment.use_cases import FinishAppointment, StartAppointment
from clinic.domain.errors import ClinicError
from clinic.domain.messaging.messages import Message, PublishResult
from clinic.entrypoints.cli import main as cli
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer, now
from clinic.entrypoints.telemetry import LoggingTelemetry

LONGEST: Final = 5 * 3600
"""Seconds that an appointment may have lasted when it begins."""
PORTS: Final = (
    (AppointmentContainer, "store", "appointments", {"add": "add", "save": "save"}),
    (AppointmentContainer, "store", "outbox", {"claim": "hand-over", "confirm": "confirm"}),
    (AppointmentContainer, "transport", "publisher", {"publish": "publish"}),
    (FinancialContainer, "transport", "subscription", {"receive": "delivery", "acknowledge": "acknowledge"}),
    (FinancialContainer, "store", "charges", {"add": "charge"}),
    (FinancialContainer, "store", "dead_letters", {"add": "dead-letter"}),
)
"""Container, its provider, the port of what that provides, and the point of each call."""

FILES: Final = {"publisher": "_log", "subscription": "_offset"}
"""Where a SQLite transport keeps its file; a SQLite store's resource is its file."""

_messages = msgspec.json.Decoder(list[Message])


class WithForeignMessages:
    """A publisher that also publishes what others have put into its folder."""

    def __init__(self, publisher: Any, folder: Path) -> None:
        self._publisher = publisher
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._publisher, name)

    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        for letter in sorted((self._folder / "post").glob("[0-9]*")):
            with suppress(
                ClinicError, FileNotFoundError
            ):  # it stays in the folder, or another instance was quicker
                messages = _messages.decode(letter.read_bytes())
                _note_a_try(self._folder / "tries" / letter.name)
                await self._publisher.publish(messages)
                letter.rename(self._folder / "sent" / letter.name)
        published: Sequence[PublishResult] = await self._publisher.publish(batch)
        return published


class Hesitant:
    """Appointments that take their time to be read and to be saved, so that of two who finish one at once
    both decide before either saves: also where one of them has the appointment at hand and reads nothing.
    """

    def __init__(self, appointments: Any, rng: random.Random) -> None:
        self._appointments = appointments
        self._rng = rng

    def __getattr__(self, name: str) -> Any:
        return getattr(self._appointments, name)

    async def get(self, appointment_id: UUID) -> Appointment:
        appointment: Appointment = await self._appointments.get(appointment_id)
        await self._hesitate()
        return appointment

    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        await self._hesitate()
        return await self._appointments.save(appointment, *events)  # type: ignore[no-any-return]

    async def _hesitate(self) -> None:
        await asyncio.sleep(self._rng.choice((0, self._rng.uniform(0, 0.1))))


def _note_a_try(path: Path) -> None:
    with path.open("ab") as tries:
        tries.write(b".")


def stepped(clock: Path) -> datetime:
    """The time, moved by the seconds in that file."""
    try:
        return now() + timedelta(seconds=float(clock.read_text()))
    except FileNotFoundError:
        return now()


def jittered(clock: Path, rng: random.Random) -> datetime:
    """That time, so that two decisions at the same moment differ in their second."""
    return stepped(clock) + timedelta(milliseconds=rng.randrange(1200))


def long_ago(clock: Path, rng: random.Random) -> datetime:
    """That time, or some hours before it, so that an appointment that has just begun is a long one."""
    return stepped(clock) - timedelta(seconds=rng.choice((0, rng.randrange(LONGEST))))


def main() -> int:
    """Put the wrappers in, wait for the word, then run the command."""
    folder = Path(sys.argv[1])
    service = sys.argv[2]
    defect = DEFECTS.get(sys.argv[3])
    failpoints, witness = Failpoints(folder, service), Witness(folder / "held" / service)
    for container, context in ((AppointmentContainer, "appointment"), (FinancialContainer, "financial")):
        container.clock.override(Object(partial(stepped, folder / f"clock.{context}")))
        if defect is not None and defect.port == "telemetry":
            container.telemetry.override(Object(defect.adapter(LoggingTelemetry(context), None)))
    rng = random.Random(f"{folder.name} {service}")  # noqa: S311 — odd times, not secrets
    _set_clocks(folder / "clock.appointment", rng)
    for container, provider, name, calls in PORTS:
        wrap = partial(_wrapped, name, calls, failpoints, defect, witness)
        getattr(container, name).override(Singleton(wrap, getattr(container, provider)))
    return (
        cli.main(sys.argv[4:]) if sys.stdin.readline() else 0
    )  # at the end of the campaign nobody gives the word


def _wrapped(
    name: str,
    calls: dict[str, str],
    failpoints: Failpoints,
    defect: Defect | None,
    witness: Witness,
    shipped: Any,
) -> Any:
    adapter = getattr(shipped, name)
    below = Below(getattr(shipped.resource, FILES.get(name, ""), shipped.resource))
    if name == "publisher":
        adapter = WithForeignMessages(adapter, failpoints.folder)
    if name == "appointments":
        _wrap_reservation(adapter, failpoints, below)
        adapter = Hesitant(adapter, random.Random(failpoints.folder.name))  # noqa: S311 — odd times, not secrets
    adapter = AtFailpoints(adapter, calls, failpoints, below)
    broken = defect.adapter if defect is not None and defect.port == name else lambda adapter, _: adapter
    if defect is None or defect.is_seen:
        return WITNESSES.get(name, _unwatched)(broken(adapter, below.resource), witness)
    return broken(WITNESSES.get(name, _unwatched)(adapter, witness), below.resource)


def _wrap_reservation(adapter: Any, *points: Any) -> None:
    """The one call inside a port's call that has failpoints: a store that makes two writes of an addition."""
    if hasattr(adapter, "_reserve"):
        adapter._reserve = AtFailpoints(adapter, {"_reserve": "reserve"}, *points)._reserve  # noqa: SLF001


def _unwatched(adapter: Any, _: Witness) -> Any:
    return adapter


WITNESSES: Final[dict[str, Callable[[Any, Witness], Any]]] = {
    "outbox": WitnessOfClaims,
    "publisher": WitnessOfPublications,
}


def _set_clocks(clock: Path, rng: random.Random) -> None:
    its = AppointmentContainer
    began, ended = Object(partial(long_ago, clock, rng)), Object(partial(jittered, clock, rng))
    price = its.settings.provided.hourly_price
    its.start_appointment.override(Singleton(StartAppointment, its.at_hand, began, Object(uuid7), price))
    its.finish_appointment.override(Singleton(FinishAppointment, its.at_hand, ended, its.telemetry))


if __name__ == "__main__":
    sys.exit(main())
