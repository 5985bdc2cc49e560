"""A service's life: it opens, runs its loop, and ends as it was asked to, or with what made it fail."""

import asyncio
import gc
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from dependency_injector.providers import Object
from support.apps import NOBODY, Clinic, WatchedTelemetry, problem, settings
from support.ports import free_ports

from clinic.adapters.memory.appointments import MemoryAppointments
from clinic.domain.appointment.model import Appointment
from clinic.domain.errors import Misconfigured, Unavailable
from clinic.domain.messaging.ports import Monitored, Resource
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.service import Lifecycle, Service, Stopping, serve
from clinic.entrypoints.services import appointment_service, financial_service
from clinic.entrypoints.settings import Settings
from clinic.entrypoints.telemetry import LoggingTelemetry
from clinic.entrypoints.web import appointment
from clinic.testing.builders import opened


class Opened(Resource):
    """Something that is opened and closed; the diary says when."""

    def __init__(self, name: str, diary: list[str], refuses: Exception | None = None) -> None:
        self._name = name
        self._diary = diary
        self._refuses = refuses

    async def open(self) -> None:
        self._diary.append(f"open {self._name}")
        if self._refuses:
            raise self._refuses

    async def close(self) -> None:
        self._diary.append(f"close {self._name}")


@pytest.mark.parametrize("host", ["x..y", ".", "a" * 70 + ".x", "nowhere.invalid"])
def test_a_host_that_is_no_address_is_named_with_its_variable(host: str, tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    app = appointment.create_app(clinic.appointment, clinic.appointment_lifecycle)
    with pytest.raises(Misconfigured, match=f"^{re.escape(host)} is not an address .* Set CLINIC_X_HOST$"):
        Service(app, clinic.appointment_lifecycle, host, 0, "CLINIC_X", 5)


async def for_ever() -> None:
    await asyncio.Event().wait()


@pytest.fixture
def lifecycle() -> Lifecycle:
    return Lifecycle(WatchedTelemetry("test"))


async def test_a_lifecycle_lasts_until_it_is_asked_to_end(lifecycle: Lifecycle) -> None:
    stopped = asyncio.create_task(lifecycle.stopped())
    assert not (await asyncio.wait([stopped], timeout=0))[0]
    lifecycle.stop()
    lifecycle.stop()
    await stopped
    assert lifecycle.failure is None


async def test_work_that_ends_first_gives_its_result(lifecycle: Lifecycle) -> None:
    async def work() -> int:
        return 42

    assert await lifecycle.unless_stopping(work()) == 42


async def test_work_that_fails_first_raises_its_own_failure(lifecycle: Lifecycle) -> None:
    async def work() -> None:
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        await lifecycle.unless_stopping(work())


@pytest.mark.parametrize("when", ["before", "during"])
async def test_work_is_given_up_when_the_service_stops(lifecycle: Lifecycle, when: str) -> None:
    given_up, begun = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            given_up.set()

    if when == "before":
        lifecycle.stop()
    asking = asyncio.create_task(lifecycle.unless_stopping(work()))
    await begun.wait()
    lifecycle.stop()
    with pytest.raises(Unavailable):
        await asking
    await given_up.wait()


async def test_the_first_failure_is_kept_and_ends_the_lifecycle(lifecycle: Lifecycle) -> None:
    first = RuntimeError("first")
    lifecycle.fail("died", first)
    lifecycle.fail("died", RuntimeError("second"))
    await lifecycle.stopped()
    assert lifecycle.failure is first


async def test_what_is_opened_is_closed_in_the_reverse_order_behind_the_loop(lifecycle: Lifecycle) -> None:
    diary: list[str] = []

    async def loop() -> None:
        diary.append("loop")
        try:
            await for_ever()
        finally:
            diary.append("loop ends")

    async with lifecycle.lifespan(lambda: [Opened("a", diary), Opened("b", diary)], loop):
        await asyncio.sleep(0)
    assert diary == ["open a", "open b", "loop", "loop ends", "close b", "close a"]
    assert lifecycle.failure is None


async def test_what_cannot_be_opened_is_the_failure_and_the_rest_is_closed(lifecycle: Lifecycle) -> None:
    diary: list[str] = []
    refusal = Misconfigured("it is served by another process")
    with pytest.raises(Misconfigured):
        async with lifecycle.lifespan(
            lambda: [Opened("a", diary), Opened("b", diary, refusal), Opened("c", diary)], for_ever
        ):
            pytest.fail("it must not live")
    assert diary[:2] == ["open a", "open b"]
    assert diary[-1] == "close a"
    assert "open c" not in diary
    assert lifecycle.failure is refusal


class Silent(Opened):
    """It waits for a server that does not answer."""

    async def open(self) -> None:
        await super().open()
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0)
            self._diary.append("gives up")


async def test_a_start_that_waits_for_a_server_ends_when_it_is_asked_to(lifecycle: Lifecycle) -> None:
    diary: list[str] = []

    async def start() -> None:
        async with lifecycle.lifespan(lambda: [Opened("a", diary), Silent("b", diary)], for_ever):
            pytest.fail("it must not live")

    starting = asyncio.create_task(start())
    await asyncio.sleep(0)
    lifecycle.stop()
    with pytest.raises(Stopping):
        await starting
    assert diary == ["open a", "open b", "gives up", "close b", "close a"]
    assert lifecycle.failure is None


async def test_a_loop_that_dies_ends_the_lifecycle_with_its_failure(lifecycle: Lifecycle) -> None:
    async def loop() -> None:
        raise RuntimeError("the loop is dead")

    async with lifecycle.lifespan(list, loop):
        await lifecycle.stopped()
        assert str(lifecycle.failure) == "the loop is dead"


class Threaded(Opened, Monitored):
    """It owns a thread, which ends."""

    ended = False

    def check_alive(self) -> None:
        if self.ended:
            raise Unavailable("its thread has ended")


@pytest.mark.parametrize("end", ["returns", "is cancelled", "raises", "raises no Exception"])
async def test_however_a_loop_ends_the_service_fails_and_is_not_alive(lifecycle: Lifecycle, end: str) -> None:
    loops: list[asyncio.Task[None] | None] = []

    async def loop() -> None:
        loops.append(asyncio.current_task())
        if end == "raises":
            raise RuntimeError("dead")
        if end == "raises no Exception":
            raise GeneratorExit
        if end == "is cancelled":
            await for_ever()

    async with lifecycle.lifespan(list, loop):
        lifecycle.check_alive()
        await asyncio.sleep(0)
        if end == "is cancelled":
            assert loops[0]
            loops[0].cancel()
        await lifecycle.stopped()
        with pytest.raises(Unavailable, match="the loop behind the service has ended"):
            lifecycle.check_alive()
    assert lifecycle.failure is not None


class Failures(LoggingTelemetry):
    """Keeps what failed."""

    def __init__(self) -> None:
        super().__init__("test")
        self.told: list[str] = []

    def failed(self, event: str, error: BaseException) -> None:
        super().failed(event, error)
        self.told.append(f"{event}: {error!r}")


async def test_what_fails_in_a_callback_or_in_a_task_that_nobody_asks_is_told() -> None:
    failures = Failures()

    def fails() -> None:
        raise ValueError("in a callback")

    async def task() -> None:
        raise GeneratorExit

    async with Lifecycle(failures).lifespan(list, for_ever):
        asyncio.get_running_loop().call_soon(fails)
        asked = asyncio.create_task(task())
        await asyncio.wait([asked])
        del asked
        gc.collect()
    assert failures.told == ["unforeseen: ValueError('in a callback')", "unforeseen: GeneratorExit()"]


async def test_a_loop_that_is_ended_with_its_service_has_not_failed(lifecycle: Lifecycle) -> None:
    async with lifecycle.lifespan(list, for_ever):
        await asyncio.sleep(0)
    assert lifecycle.failure is None


async def test_a_thread_that_has_ended_is_asked_and_named(lifecycle: Lifecycle) -> None:
    threaded = Threaded("threaded", [])
    async with lifecycle.lifespan(lambda: [Opened("other", []), threaded], for_ever):
        lifecycle.check_alive()
        threaded.ended = True
        with pytest.raises(Unavailable, match="its thread has ended"):
            lifecycle.check_alive()


async def test_a_thread_that_has_ended_ends_its_service_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Ending(Opened, Monitored):
        def check_alive(self) -> None:
            raise RuntimeError("its thread has ended")

    told: list[str] = []

    class Recording(WatchedTelemetry):
        def failed(self, event: str, error: BaseException) -> None:
            told.append(f"{event}: {error}")

    monkeypatch.setattr("clinic.entrypoints.service.LOOK_INTERVAL", 0)
    lifecycle = Lifecycle(Recording("test"))

    async def meets_it() -> None:
        await lifecycle.stopped()
        raise RuntimeError("its thread has ended")

    async with lifecycle.lifespan(lambda: [Ending("ending", [])], meets_it):
        await asyncio.wait_for(lifecycle.stopped(), 10)
        with pytest.raises(Unavailable, match="has ended"):
            lifecycle.check_alive()
    assert str(lifecycle.failure) == "its thread has ended"
    assert told == ["a thread behind the service ended: its thread has ended"]


@pytest.mark.parametrize("end", ["raises no Exception", "is cancelled"])
async def test_however_the_watch_over_the_threads_ends_the_service_ends(
    lifecycle: Lifecycle, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    class Panicking(Opened, Monitored):
        def check_alive(self) -> None:
            if end == "raises no Exception":
                raise GeneratorExit
            (watching,) = [task for task in asyncio.all_tasks() if "_watch_threads" in repr(task)]
            watching.cancel()

    monkeypatch.setattr("clinic.entrypoints.service.LOOK_INTERVAL", 0)
    async with lifecycle.lifespan(lambda: [Panicking("panicking", [])], for_ever):
        await asyncio.wait_for(lifecycle.stopped(), 10)
    assert lifecycle.failure is not None


async def test_a_resource_that_cannot_work_for_a_while_ends_nothing(
    lifecycle: Lifecycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    class Away(Opened, Monitored):
        def check_alive(self) -> None:
            asked.set()
            raise Unavailable("its file is away")

    monkeypatch.setattr("clinic.entrypoints.service.LOOK_INTERVAL", 0)
    async with lifecycle.lifespan(lambda: [Away("away", [])], for_ever):
        await asyncio.wait_for(asked.wait(), 10)
        await asyncio.sleep(0)
    assert lifecycle.failure is None


async def test_the_failure_is_kept_and_the_stop_requested_before_it_is_logged() -> None:
    seen: list[BaseException | None] = []

    class Raising(WatchedTelemetry):
        def failed(self, event: str, error: BaseException) -> None:
            seen.append(failing.failure)
            raise OSError(f"{event}: {error}")

    failing, error = Lifecycle(Raising("test")), RuntimeError("dead")
    failing.fail("died", error)
    failing.fail("died", error)
    await failing.stopped()
    assert seen == [error]  # reported once


async def test_a_resource_that_cannot_be_made_is_the_failure(lifecycle: Lifecycle) -> None:
    def resources() -> list[Opened]:
        raise TypeError("no such option")

    with pytest.raises(TypeError):
        async with lifecycle.lifespan(resources, for_ever):
            pytest.fail("it must not live")
    assert isinstance(lifecycle.failure, TypeError)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    (port,) = free_ports(1)
    return port


def a_service(clinic: Clinic, port: int) -> Service:
    app = appointment.create_app(clinic.appointment, clinic.appointment_lifecycle)
    return Service(app, clinic.appointment_lifecycle, "127.0.0.1", port, "CLINIC_APPOINTMENT", 75)


@asynccontextmanager
async def started(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that answers."""
    async with httpx.AsyncClient(base_url=service.url) as client:
        while True:
            try:
                await client.get("/health/live")
            except httpx.ConnectError:
                continue
            break
        yield client


async def test_a_relay_that_dies_ends_its_service_with_its_failure(tmp_path: Path, free_port: int) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    die = asyncio.Event()

    class DeadRelay:
        problem = None

        async def run(self) -> None:
            await die.wait()
            raise RuntimeError("the relay is dead")

    clinic.appointment.relay.override(Object(DeadRelay()))
    service = a_service(clinic, free_port)
    running = asyncio.create_task(serve(service))
    async with started(service) as client:
        assert (await client.get("/")).status_code == 200
        die.set()
        with pytest.raises(RuntimeError, match="the relay is dead"):
            await running
        with pytest.raises(httpx.TransportError):
            await client.get("/health/live")


async def test_a_request_that_outlasts_the_end_of_its_service_is_a_503(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    class Hanging(MemoryAppointments):
        async def get(self, appointment_id: UUID) -> Appointment:
            asked.set()
            await for_ever()
            raise AssertionError(appointment_id)

    monkeypatch.setattr("clinic.entrypoints.service.REQUESTS_TIMEOUT", 0.1)
    clinic = Clinic(settings("memory", tmp_path))
    clinic.appointment.appointments.override(Object(Hanging(clinic.clock, 3.0)))
    service = a_service(clinic, free_port)
    running = asyncio.create_task(serve(service))
    async with started(service) as client:
        asking = asyncio.create_task(client.get(f"/{NOBODY}/"))
        await asked.wait()
        service.stop()
        assert problem(await asking, 503)["detail"] == "the service is stopping"
        await running


async def test_a_store_that_cannot_be_opened_ends_the_service_with_that_reason(
    tmp_path: Path, free_port: int
) -> None:
    async with Clinic(settings("sqlite", tmp_path)).running():
        second = Clinic(settings("sqlite", tmp_path))
        with pytest.raises(Misconfigured, match="served by another process"):
            await serve(a_service(second, free_port))


@pytest.mark.parametrize(
    ("store", "transport", "told"),
    [
        ("sqlite", "kafka", 1),
        ("memory", "kafka", 1),
        ("mongo", "kafka", 0),
        ("sqlite", "sqlite", 0),
        ("memory", "memory", 0),
    ],
)
def test_where_a_second_instance_would_keep_its_own_charges_each_start_says_so(
    tmp_path: Path, free_port: int, store: str, transport: str, told: int
) -> None:
    telemetry = WatchedTelemetry("financial")
    chosen = Settings(store=store, transport=transport, data_dir=tmp_path, financial_port=free_port)
    container = FinancialContainer(settings=chosen)
    container.telemetry.override(Object(telemetry))
    with closing(financial_service(container)._socket):  # noqa: SLF001 — it is bound, and never served
        assert telemetry.times("one instance only") == told


@pytest.mark.parametrize(
    ("store", "transport", "told"),
    [
        ("mongo", "sqlite", 1),
        ("memory", "sqlite", 1),
        ("sqlite", "sqlite", 0),
        ("mongo", "kafka", 0),
        ("sqlite", "kafka", 0),
    ],
)
def test_where_a_second_instance_would_publish_for_nobody_each_start_says_so(
    tmp_path: Path, free_port: int, store: str, transport: str, told: int
) -> None:
    telemetry = WatchedTelemetry("appointment")
    chosen = Settings(store=store, transport=transport, data_dir=tmp_path, appointment_port=free_port)
    container = AppointmentContainer(settings=chosen)
    container.telemetry.override(Object(telemetry))
    with closing(appointment_service(container)._socket):  # noqa: SLF001 — it is bound, and never served
        assert telemetry.times("one instance only") == told


async def test_a_second_financial_instance_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    chosen = Settings(store="sqlite", transport="kafka", data_dir=tmp_path)
    first, second = (FinancialContainer(settings=chosen).store().resource for _ in range(2))
    async with opened(first):
        with pytest.raises(Misconfigured, match=r"financial\.db is served by another process"):
            await second.open()


async def test_when_one_service_dies_the_other_in_its_process_ends_too(
    tmp_path: Path, free_port: int
) -> None:
    async with Clinic(settings("sqlite", tmp_path / "taken")).running():
        good, bad = Clinic(settings("memory", tmp_path)), Clinic(settings("sqlite", tmp_path / "taken"))
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = int(other.getsockname()[1])
        with pytest.raises(Misconfigured):
            await serve(a_service(good, free_port), a_service(bad, port))
        await good.appointment_lifecycle.stopped()


def test_a_port_in_use_is_one_line_that_names_what_to_set(tmp_path: Path, taken: int) -> None:
    with pytest.raises(Misconfigured) as raised:
        a_service(Clinic(settings("memory", tmp_path)), taken)
    assert f"127.0.0.1:{taken}" in str(raised.value)
    assert "CLINIC_APPOINTMENT_PORT" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("ask", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_service_and_nothing_has_failed(
    tmp_path: Path, free_port: int, ask: signal.Signals
) -> None:
    clinic = Clinic(settings("sqlite", tmp_path))
    service = a_service(clinic, free_port)
    running = asyncio.create_task(serve(service))
    async with started(service):
        os.kill(os.getpid(), ask)
        await running
    assert clinic.appointment_lifecycle.failure is None
    async with Clinic(settings("sqlite", tmp_path)).running() as again:  # its files are free
        assert await again.all_appointments() == []
