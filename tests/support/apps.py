"""Both services, whole and in this process: the real apps on real containers, called over HTTP without a
network.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, cast
from uuid import UUID

import httpx
from dependency_injector.providers import Object
from litestar import Litestar

from clinic.adapters.memory.appointments import MemoryAppointments
from clinic.adapters.memory.charges import MemoryCharges
from clinic.adapters.memory.dead_letters import MemoryDeadLetters
from clinic.domain.appointment import ports as appointment_ports
from clinic.domain.appointment.model import Appointment
from clinic.domain.errors import Unavailable
from clinic.domain.financial import ports as financial_ports
from clinic.domain.financial.model import Charge, ChargeCursor
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetterFilter, HistoryCursor
from clinic.domain.messaging.messages import Message
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.service import Lifecycle
from clinic.entrypoints.settings import Settings
from clinic.entrypoints.telemetry import LoggingTelemetry
from clinic.entrypoints.web import appointment, financial
from clinic.testing.builders import StandingClock

PHYSICIAN = "11111111-1111-4111-8111-111111111111"
PATIENT = "22222222-2222-4222-8222-222222222222"
NOBODY = "33333333-3333-4333-8333-333333333333"
NIL = "00000000-0000-0000-0000-000000000000"
PROBLEM_KEYS = ["type", "title", "status", "detail", "instance"]

Technology = Literal["memory", "sqlite"]


def settings(technology: Technology, folder: Path, **changes: Any) -> Settings:
    """Settings that touch nothing but this folder."""
    return Settings(store=technology, transport=technology, data_dir=folder, **changes)


class WatchedTelemetry(LoggingTelemetry):
    """Logs and counts; a test can wait for an event to come."""

    def __init__(self, service: str) -> None:
        super().__init__(service)
        self._seen: list[str] = []
        self._news = asyncio.Event()

    def __call__(self, event: str, /, **details: object) -> None:
        super().__call__(event, **details)
        self._seen.append(event)
        self._news.set()

    def times(self, event: str) -> int:
        """How often it was recorded."""
        return self._seen.count(event)

    async def seen(self, event: str, times: int = 1) -> None:
        """Return once it was recorded that often."""
        while self._seen.count(event) < times:
            self._news.clear()
            await self._news.wait()


class Clinic:
    """Two containers on one log and one clock; once it is running, two clients."""

    def __init__(self, its: Settings) -> None:
        self.clock = StandingClock()
        self.appointment = AppointmentContainer(settings=its)
        self.financial = FinancialContainer(settings=its, shared=self.appointment.shared)
        for container in (self.appointment, self.financial):
            container.clock.override(Object(self.clock))
        self.appointment_telemetry = WatchedTelemetry("appointment")
        self.financial_telemetry = WatchedTelemetry("financial")
        self.appointment.telemetry.override(Object(self.appointment_telemetry))
        self.financial.telemetry.override(Object(self.financial_telemetry))
        self.appointment_lifecycle = Lifecycle(self.appointment_telemetry)
        self.financial_lifecycle = Lifecycle(self.financial_telemetry)
        self.apps: Sequence[Litestar]
        self.appointments: httpx.AsyncClient
        self.charges: httpx.AsyncClient

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Clinic"]:
        """Both services from their start to their end."""
        async with AsyncExitStack() as stack:
            self.apps = [
                appointment.create_app(self.appointment, self.appointment_lifecycle),
                financial.create_app(self.financial, self.financial_lifecycle),
            ]
            self.appointments, self.charges = [
                await stack.enter_async_context(client_of(app)) for app in self.apps
            ]
            yield self

    async def start(self, physician_id: str = PHYSICIAN, patient_id: str = PATIENT) -> str:
        """The id of a new appointment."""
        answer = await self.appointments.post(
            "/", json={"physician_id": physician_id, "patient_id": patient_id}
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def finish(self, appointment_id: str) -> httpx.Response:
        """The answer of finishing it."""
        return await self.appointments.post(f"/{appointment_id}/")

    async def charged(self, appointment_id: str) -> httpx.Response:
        """The answer with its charge, as soon as there is one."""
        return await self.charges.get(f"/{appointment_id}/", headers={"Prefer": "wait=30"})

    async def all_appointments(self) -> list[dict[str, Any]]:
        """What the list shows."""
        return list((await self.appointments.get("/?limit=100")).json()["items"])


@asynccontextmanager
async def client_of(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """A client of this app, while the app is alive. An error that the app does not answer fails the test."""
    async with (
        alive(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(cast("Any", app)), base_url="http://clinic"
        ) as client,
    ):
        yield client


@asynccontextmanager
async def alive(app: Litestar) -> AsyncIterator[None]:
    """The app's lifespan, in a task of its own as a server does it: a fixture may begin and end in different
    ones.
    """
    begun, end = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.lifespan():
            begun.set()
            await end.wait()

    lifespan = asyncio.create_task(live())
    beginning = asyncio.create_task(begun.wait())
    await asyncio.wait([lifespan, beginning], return_when=asyncio.FIRST_COMPLETED)
    try:
        if begun.is_set():
            yield
        else:
            beginning.cancel()
    finally:
        end.set()
        await lifespan


def exactly(answer: httpx.Response) -> Any:
    """The body with every number as it is written: 200.00 is not 200.0."""
    return json.loads(answer.content, parse_float=Decimal)


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document that the answer must be, and nothing else."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = dict(answer.json())
    assert list(document) in (PROBLEM_KEYS, [*PROBLEM_KEYS, "errors"])
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["type"].startswith("urn:clinic:problem:")
    assert document["instance"] == answer.request.url.raw_path.decode().partition("?")[0]
    for word in ("Traceback", "<html", "/site-packages", 'File "'):
        assert word not in answer.text
    return document


def wrong_fields(answer: httpx.Response) -> dict[str, str]:
    """The fields that a 400 names, each with what is wrong."""
    named = problem(answer, 400)["errors"]
    assert all(list(each) == ["field", "problem"] for each in named)
    assert len({each["field"] for each in named}) == len(named)
    return {each["field"]: each["problem"] for each in named}


class UnreachableAppointments(MemoryAppointments):
    """A store that does not answer. `kept_first`: what it was given it keeps, and its answer is lost."""

    kept_first = False
    reachable = False

    async def add(self, appointment: Appointment, *, once: bytes = b"") -> Appointment:
        first = await super().add(appointment, once=once) if self.kept_first else appointment
        self._lose()
        return first

    async def get(self, appointment_id: UUID) -> Appointment:
        if not self.kept_first:
            self._lose()
        return await super().get(appointment_id)

    async def save(self, appointment: Appointment, *events: Message) -> Appointment:
        saved = await super().save(appointment, *events)
        self._lose()
        return saved

    async def page(
        self, wanted: appointment_ports.AppointmentFilter, limit: int, after: UUID | None = None
    ) -> Any:
        self._lose()
        return await super().page(wanted, limit, after)

    async def check(self) -> None:
        self._lose()

    def _lose(self) -> None:
        if not self.reachable:
            raise Unavailable("the appointments do not answer")


class UnreachableDeadLetters(MemoryDeadLetters):
    """A store that does not answer."""

    async def get(self, position: str) -> DeadLetter:
        raise Unavailable(f"the dead letters do not answer about {position}")

    async def page(self, wanted: DeadLetterFilter, limit: int, after: str = "") -> Any:
        raise Unavailable(f"the dead letters do not answer about {wanted}, {limit}, {after}")

    async def groups(self) -> Any:
        raise Unavailable("the dead letters do not answer")

    async def history(self, limit: int, after: HistoryCursor | None = None) -> Any:
        raise Unavailable(f"the dead letters do not answer about {limit} behind {after}")


class UnreachableCharges(MemoryCharges):
    """A store that does not answer."""

    async def get(self, appointment_id: UUID) -> Charge:
        raise Unavailable(f"the charges do not answer about {appointment_id}")

    async def wait_for(self, appointment_id: UUID, within: float) -> Charge:
        raise Unavailable(f"the charges do not answer about {appointment_id} within {within} s")

    async def page(
        self, wanted: financial_ports.ChargeFilter, limit: int, after: ChargeCursor | None = None
    ) -> Any:
        raise Unavailable(f"the charges do not answer about {wanted}, {limit}, {after}")

    async def check(self) -> None:
        raise Unavailable("the charges do not answer")
