"""Which class fills which port is chosen by setting, in one place."""

from pathlib import Path
from typing import Literal

import pytest
from support.apps import Technology, settings

from clinic.adapters.kafka.publisher import KafkaPublisher
from clinic.adapters.kafka.subscription import KafkaSubscription
from clinic.adapters.memory.store import MemoryAppointments, MemoryCharges, MemoryDeadLetters
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
        opened = [
            each
            for each in kind(settings=Settings(store=store, transport=transport, data_dir=folder)).resources()
            if each is not None
        ]
        for each in opened:
            await each.open()
        assert sorted(path.name for path in folder.glob("*.db")) == expected
        for each in reversed(opened):
            await each.close()


def test_nothing_happens_when_a_container_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "not there"
    for kind in (AppointmentContainer, FinancialContainer):
        container = kind(settings=settings("sqlite", folder))
        container.resources()
    assert not folder.exists()


def test_everything_is_made_once_and_two_containers_share_nothing(tmp_path: Path) -> None:
    first, second = (AppointmentContainer(settings=settings("sqlite", tmp_path)) for _ in range(2))
    assert first.start_appointment() is first.start_appointment()
    assert first.file() is first.file()
    assert first.file() is not second.file()
    assert first.telemetry() is not second.telemetry()


def test_a_container_without_settings_says_so() -> None:
    with pytest.raises(Exception, match="settings"):
        AppointmentContainer().file()
