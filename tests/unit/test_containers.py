"""Which class fills which port is chosen by setting, in one place."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from dependency_injector.providers import Object, Singleton
from prometheus_client import CollectorRegistry
from support.apps import Technology, settings

from clinic.adapters.kafka.publisher import KafkaPublisher
from clinic.adapters.kafka.subscription import KafkaSubscription
from clinic.adapters.memory.appointments import MemoryAppointments
from clinic.adapters.memory.charges import MemoryCharges
from clinic.adapters.memory.dead_letters import MemoryDeadLetters
from clinic.adapters.memory.transport import MemoryPublisher, MemorySubscription
from clinic.adapters.mongo.appointments import MongoAppointments
from clinic.adapters.mongo.charges import MongoCharges
from clinic.adapters.mongo.dead_letters import MongoDeadLetters
from clinic.adapters.sqlite.appointments import SqliteAppointments
from clinic.adapters.sqlite.charges import SqliteCharges
from clinic.adapters.sqlite.dead_letters import SqliteDeadLetters
from clinic.adapters.sqlite.transport import SqlitePublisher, SqliteSubscription
from clinic.domain.messaging.consumer import Consumer
from clinic.domain.messaging.relay import Relay
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.settings import Settings
from clinic.entrypoints.technologies.memory import memory_log
from clinic.testing.builders import opened

WRAPPERS = {"clinic.entrypoints.measured", "clinic.entrypoints.traced"}
Store = Literal["sqlite", "mongo", "memory"]
Transport = Literal["sqlite", "kafka", "memory"]


@pytest.mark.parametrize(
    ("store", "kept"),
    [
        ("memory", (MemoryAppointments, MemoryCharges, MemoryDeadLetters)),
        ("sqlite", (SqliteAppointments, SqliteCharges, SqliteDeadLetters)),
        ("mongo", (MongoAppointments, MongoCharges, MongoDeadLetters)),
    ],
)
@pytest.mark.parametrize(
    ("transport", "carried"),
    [
        ("memory", (MemoryPublisher, MemorySubscription)),
        ("sqlite", (SqlitePublisher, SqliteSubscription)),
        ("kafka", (KafkaPublisher, KafkaSubscription)),
    ],
)
def test_store_and_transport_are_chosen_apart(
    tmp_path: Path, store: Store, transport: Transport, kept: tuple[type, ...], carried: tuple[type, ...]
) -> None:
    its = Settings(store=store, transport=transport, data_dir=tmp_path)
    appointments, charges = AppointmentContainer(settings=its), FinancialContainer(settings=its)
    assert (type(appointments.appointments()), type(charges.charges()), type(charges.dead_letters())) == kept
    assert (type(appointments.publisher()), type(charges.subscription())) == carried
    assert isinstance(appointments.relay(), Relay)
    assert isinstance(charges.consumer(), Consumer)


@pytest.mark.parametrize(
    ("store", "transport", "files"),
    [
        ("memory", "memory", ([], [])),
        ("sqlite", "memory", (["appointment.db"], ["financial.db"])),
        ("memory", "sqlite", (["events.db"], ["events.financial.db"])),
        ("sqlite", "sqlite", (["appointment.db", "events.db"], ["events.financial.db", "financial.db"])),
    ],
)
async def test_a_service_opens_exactly_the_files_of_its_own(
    tmp_path: Path, store: Technology, transport: Technology, files: tuple[list[str], list[str]]
) -> None:
    for kind, expected in zip((AppointmentContainer, FinancialContainer), files, strict=True):
        folder = tmp_path / kind.__name__
        opened = kind(settings=Settings(store=store, transport=transport, data_dir=folder)).resources()
        for each in opened:
            await each.open()
        assert sorted(path.name for path in folder.glob("*.db")) == expected
        for each in reversed(opened):
            await each.close()


MAKE_EVERYTHING = """
import sys
from pathlib import Path
from clinic.entrypoints.cli import main
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.settings import Settings

its = Settings(store={store!r}, transport={transport!r}, data_dir=Path({folder!r}))
appointment, financial = AppointmentContainer(settings=its), FinancialContainer(settings=its)
appointment.relay(), appointment.appointments(), appointment.resources()
financial.consumer(), financial.charges(), financial.dead_letters(), financial.resources()
print(*sorted({{"pymongo", "confluent_kafka", "sqlite3", "rich.progress"}} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("store", "transport", "imported"),
    [
        ("sqlite", "sqlite", ["sqlite3"]),
        ("memory", "memory", []),
        ("mongo", "memory", ["pymongo"]),
        ("memory", "kafka", ["confluent_kafka"]),
    ],
)
def test_only_the_technologies_that_are_chosen_are_imported(
    tmp_path: Path, store: Store, transport: Transport, imported: list[str]
) -> None:
    program = MAKE_EVERYTHING.format(store=store, transport=transport, folder=str(tmp_path))
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == imported


class Mark:
    """Whatever fills a port."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()


def rests_on(use: object, mark: Mark) -> bool:
    """Whether it was handed to it, perhaps by what measures or traces it."""
    handed = list(vars(use).values())
    wrapped = [value for value in handed if type(value).__module__ in WRAPPERS]
    return any(mark is value for value in handed) or any(rests_on(each, mark) for each in wrapped)


@pytest.mark.parametrize(
    "name",
    ["appointments", "outbox", "publisher", "clock", "sleep", "monotonic", "jitter", "telemetry"],
)
def test_what_the_appointment_service_rests_on_is_overridden_by_its_name(tmp_path: Path, name: str) -> None:
    container, mark = AppointmentContainer(settings=settings("memory", tmp_path)), Mark()
    getattr(container, name).override(Object(mark))
    uses = [
        container.relay(),
        container.at_hand(),
        container.start_appointment(),
        container.finish_appointment(),
    ]
    assert any(rests_on(use, mark) for use in uses)


@pytest.mark.parametrize(
    "name",
    ["charges", "dead_letters", "subscription", "clock", "sleep", "jitter", "telemetry"],
)
def test_what_the_financial_service_rests_on_is_overridden_by_its_name(tmp_path: Path, name: str) -> None:
    container, mark = FinancialContainer(settings=settings("memory", tmp_path)), Mark()
    getattr(container, name).override(Object(mark))
    uses = [container.consumer(), container.charge_appointments()]
    assert any(rests_on(use, mark) for use in uses)


def test_a_port_is_wrapped_for_every_container_that_is_made_afterwards(tmp_path: Path) -> None:
    wrap = Singleton(lambda store: ["around", store.outbox], AppointmentContainer.store)
    with AppointmentContainer.outbox.override(wrap):
        container = AppointmentContainer(settings=settings("memory", tmp_path))
        another = AppointmentContainer(settings=settings("memory", tmp_path))
    assert container.outbox() == ["around", container.store().outbox]
    assert container.outbox()[1] is not another.outbox()[1]


@pytest.mark.parametrize("technology", ["memory", "sqlite"])
async def test_the_group_that_is_set_is_the_one_that_events_go_to(
    tmp_path: Path, technology: Technology
) -> None:
    its = settings(technology, tmp_path, consumer_group="auditors")
    container = FinancialContainer(settings=its)
    async with opened(container.transport().resource):
        waiting = asyncio.create_task(container.subscription().receive())
        await asyncio.sleep(0)
        waiting.cancel()
    if technology == "sqlite":
        assert (tmp_path / "events.auditors.db").exists()
    else:
        assert list(memory_log(container.shared()).offsets) == ["auditors"]


def test_nothing_happens_when_a_container_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "not there"
    for kind in (AppointmentContainer, FinancialContainer):
        container = kind(settings=settings("sqlite", folder))
        container.resources()
    assert not folder.exists()


def test_everything_is_made_once_and_two_containers_share_nothing(tmp_path: Path) -> None:
    first, second = (AppointmentContainer(settings=settings("sqlite", tmp_path)) for _ in range(2))
    assert first.start_appointment() is first.start_appointment()
    assert first.store() is first.store()
    assert first.store() is not second.store()
    assert first.telemetry() is not second.telemetry()


def test_a_container_without_settings_says_so() -> None:
    with pytest.raises(Exception, match="settings"):
        AppointmentContainer().store()
