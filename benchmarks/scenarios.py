"""What is measured: each scenario is a function of a running session, and leaves it ready for the next."""

import asyncio
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

import httpx
import uvloop
from dependency_injector.providers import Object
from msgspec.structs import replace

from benchmarks import wrk
from benchmarks.client import PATIENCE, Answered, Connections, FellBehindError, open_loop
from benchmarks.figures import Measurement, percentile
from benchmarks.observer import charges_seen
from benchmarks.procfs import spent
from benchmarks.session import SERVICES, Session, until
from benchmarks.systems import InMongo
from clinic.domain.events import AppointmentFinished, to_message
from clinic.domain.messaging.ports import Telemetry
from clinic.domain.money import Money
from clinic.entrypoints.containers import AppointmentContainer
from clinic.entrypoints.settings import load

BATCH_SIZE: Final = 500
SETTLES: Final = 0.3
"""Seconds in which the requests end that the closed-loop client left under way."""
START, END = datetime(2020, 12, 1, 13, tzinfo=UTC), datetime(2020, 12, 1, 14, tzinfo=UTC)


def begin(session: Session, service: str) -> Measurement:
    """Start a service: how soon it is ready, and its memory then."""
    before = session.snapshot()
    values = {f"ready.{service}": session.start(service)}
    values[f"memory.{service}"] = session.memory(service) / 1e6
    return session.measurement(f"begin {service}", spent(before, session.snapshot()), values)


def start(session: Session, seconds: float, *, keyed: bool = False) -> Measurement:
    """`POST /` over 64 connections; `keyed`, each with an `Idempotency-Key` of its own."""
    port, prefix = session.port("appointment"), session.system.prefix
    wrk.start(port, 1, session.place.folder, prefix, keyed=keyed)
    time.sleep(SETTLES)
    before = session.snapshot()
    driven = wrk.start(port, seconds, session.place.folder, prefix, keyed=keyed)
    time.sleep(SETTLES)
    name = "start keyed" if keyed else "start"
    return session.measurement(name, spent(before, session.snapshot()), _driven(driven), driven.requests)


def finish(session: Session, seconds: float, name: str = "finish") -> Measurement:
    """`POST /{id}/` over 64 connections, the newest first. CPU time counts until the outbox is empty.

    `at_hand`: per cent of the finishes that needed no load.
    """
    if session.system.prefix:
        return _finish_nothing(session, seconds)
    port, folder = session.port("appointment"), session.place.folder
    ids, earlier = sorted(session.stored.open_ids(), reverse=True), session.stored.finished()
    before, saved = session.snapshot(), loads_saved(session)
    driven = wrk.finish(port, seconds, folder, ids)
    time.sleep(SETTLES)
    until(lambda: session.stored.unpublished() == 0, "the outbox is empty")
    after, finished = session.snapshot(), session.stored.finished() - earlier
    values = _driven(driven)
    if saved is not None:
        values["at_hand"] = ((loads_saved(session) or 0) - saved) * 100 / finished
    return session.measurement(name, spent(before, after), values, finished)


def _finish_nothing(session: Session, seconds: float) -> Measurement:
    ids = [str(uuid4()) for _ in range(1000)]  # nothing is stored: any id will do
    before = session.snapshot()
    port, folder = session.port("appointment"), session.place.folder
    driven = wrk.finish(port, seconds, folder, ids, session.system.prefix)
    return session.measurement("finish", spent(before, session.snapshot()), _driven(driven), driven.requests)


def finish_loaded(session: Session, seconds: float) -> Measurement:
    """The same by a service that has started none of them: each is loaded."""
    wrk.start(session.port("appointment"), seconds, session.place.folder)
    session.stop("appointment")
    session.start("appointment")
    return finish(session, seconds, "finish loaded")


def loads_saved(session: Session) -> float | None:
    """How many finishes needed no load so far; None where nobody counts them."""
    found = httpx.get(f"http://127.0.0.1:{session.port('appointment')}/metrics", trust_env=False)
    counted = re.search(r"^clinic_loads_saved_total (\S+)$", found.text, re.MULTILINE)
    return float(counted[1]) if counted else None


def idle(session: Session, seconds: float) -> Measurement:
    """Nobody asks anything: what both services spend, in per cent of a core."""
    time.sleep(1)
    before = session.snapshot()
    time.sleep(seconds)
    used = spent(before, session.snapshot())
    share = sum(used.cpu[name] for name in SERVICES) / used.seconds
    return session.measurement("idle", used, {"idle": share * 100})


def at_rate(session: Session, rate: int, seconds: float, name: str = "") -> Measurement:
    """Finishes at a steady rate: answer and charge, each from the moment that the request was due."""
    ids = _open(session, int(rate * (seconds + 1)))
    answered: list[Answered] = []
    note = ""
    with ExitStack() as stack:
        seen: dict[str, float] = {}
        if isinstance(session.stored, InMongo):
            seen = stack.enter_context(charges_seen(session.stored.financial))
        before = session.snapshot()
        try:
            answered = uvloop.run(_finishes(session, ids, rate, seen))
            until(lambda: len(seen) >= len(ids), "every finish has a charge", PATIENCE)
        except (FellBehindError, TimeoutError):
            note = "falls behind"
        used = spent(before, session.snapshot())
    values = {} if note else _latencies([found for found in answered if found.id in set(ids[rate:])], seen)
    if not note:
        values["cpu"] = sum(used.cpu.values()) * 1e3 / len(ids)
    measured = session.measurement(f"{name} {rate}/s".strip(), used, values, len(ids))
    return replace(measured, note=note)


def drain(session: Session) -> Measurement:
    """The financial service behind a backlog."""
    session.stop("appointment")
    kept, count = session.stored.charges(), session.system.drained
    with session.paused("financial"):
        uvloop.run(_publish(session, count))
        before = session.snapshot()
    until(lambda: session.stored.charges() >= kept + count, f"{count} charges", 120)
    used = spent(before, session.snapshot())
    return session.measurement("drain", used, {"rate": count / used.seconds}, count)


def _driven(driven: wrk.Driven) -> dict[str, float]:
    return {"rate": driven.requests / driven.seconds, "p50": driven.p50, "p99": driven.p99}


def _open(session: Session, count: int) -> Sequence[str]:
    while len(ids := session.stored.open_ids()) < count:
        wrk.start(session.port("appointment"), 2, session.place.folder)
    return ids[:count]


async def _finishes(
    session: Session, ids: Sequence[str], rate: int, seen: dict[str, float]
) -> list[Answered]:
    appointments, charges = (Connections(session.port(service)) for service in SERVICES)
    waiting: list[asyncio.Task[None]] = []

    async def see(appointment_id: str) -> None:
        await charges.ask(f"GET /{appointment_id}/", "Prefer: wait=20")
        seen[appointment_id] = time.perf_counter()

    async def finish(appointment_id: str) -> None:
        await appointments.ask(f"POST /{appointment_id}/")
        if not isinstance(session.stored, InMongo):  # there, the charge is waited for as a client does
            waiting.append(asyncio.create_task(see(appointment_id)))

    try:
        answered = await open_loop(ids, rate, finish)
        await asyncio.gather(*waiting)
    finally:
        appointments.close()
        charges.close()
    return answered


def _latencies(answered: Sequence[Answered], seen: dict[str, float]) -> dict[str, float]:
    times = {
        "answer": [found.answered - found.due for found in answered],
        "charge": [seen[found.id] - found.due for found in answered],
        "late": [found.sent - found.due for found in answered],
    }
    return {
        f"{name}.{label}": percentile(found, share) * 1e3
        for name, found in times.items()
        for label, share in (("p50", 0.5), ("p99", 0.99))
    }


class _Silent(Telemetry):
    def __call__(self, event: str, /, **details: object) -> None:  # noqa: ARG002 — the port's signature
        return


async def _publish(session: Session, count: int) -> None:
    """Events of appointments that nobody knows, into the session's topic or log."""
    settings = load(session.place.clinic(session.system))
    end = AppointmentContainer(settings=settings, telemetry=Object(_Silent())).transport()
    await end.resource.open()
    for first in range(0, count, BATCH_SIZE):
        size = min(BATCH_SIZE, count - first)
        await end.publisher.publish([to_message(_an_event()) for _ in range(size)])
    await end.resource.close()


def _an_event() -> AppointmentFinished:
    return AppointmentFinished(
        appointment_id=uuid4(),
        physician_id=uuid4(),
        patient_id=uuid4(),
        price=Money("200.00"),
        start=START,
        end=END,
    )
