"""A start that cannot succeed: one readable line, and the exit code 1."""

import re
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.ports import free_ports
from support.processes import Pair, Process, Service

import clinic


@pytest.fixture
def taken_port() -> Iterator[int]:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        yield port


async def complaint(process: Process) -> str:
    """The one line with which it ended."""
    process.start()
    assert await process.ended() == 1
    assert process.printed == ""
    (line,) = process.complained.splitlines()
    assert line.startswith("clinic: ")
    return line


@pytest.mark.parametrize("service", ["appointment", "financial"])
async def test_a_port_in_use_is_named_with_what_to_set(
    command: Callable[..., Service], service: str, taken_port: int
) -> None:
    variable = f"CLINIC_{service.upper()}_PORT"

    line = await complaint(command("run", service, **{variable: str(taken_port)}))

    assert f"127.0.0.1:{taken_port}" in line
    assert variable in line


async def test_a_port_in_use_ends_the_other_service_too(
    command: Callable[..., Service], pair: Pair, taken_port: int
) -> None:
    both = command("run", CLINIC_FINANCIAL_PORT=str(taken_port))
    both.start()

    assert await both.ended() == 1

    assert f"127.0.0.1:{taken_port} cannot be used" in both.complained
    assert "Traceback" not in both.complained
    with socket.socket() as trying:
        assert trying.connect_ex(("127.0.0.1", int(pair.environment["CLINIC_APPOINTMENT_PORT"]))) != 0


@pytest.mark.parametrize("service", ["appointment", "financial"])
async def test_a_second_service_on_the_same_folder_says_so(
    command: Callable[..., Service], pair: Pair, service: str
) -> None:
    first = command("run", service, name="first")
    first.url = getattr(pair, service).url
    await first.started()
    (port,) = free_ports(1)

    line = await complaint(
        command("run", service, name="second", **{f"CLINIC_{service.upper()}_PORT": str(port)})
    )

    assert str(pair.data) in line
    assert "another process" in line
    assert await first.stopped() == 0


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CLINIC_STORE", "postgres"),
        ("CLINIC_TRANSPORT", "pigeon"),
        ("CLINIC_HOURLY_PRICE", "200.001"),
        ("CLINIC_PRICING", "by-mood"),
        ("CLINIC_APPOINTMENT_PORT", "eighty"),
        ("CLINIC_FINANCIAL_PORT", "70000"),
        ("CLINIC_LOG_LEVEL", "loud"),
        ("CLINIC_APPOINTMENT_HOST", "nowhere.invalid"),
    ],
)
async def test_a_setting_that_cannot_be_used_is_named(
    command: Callable[..., Service], variable: str, text: str
) -> None:
    service = "financial" if "FINANCIAL" in variable else "appointment"

    line = await complaint(command("run", service, **{variable: text}))

    assert variable in line
    assert text in line


@pytest.mark.parametrize("arguments", [("run",), ("run", "appointment"), ("run", "financial")])
@pytest.mark.parametrize("variable", ["CLINIC_STORE", "CLINIC_TRANSPORT"])
async def test_memory_is_refused_where_the_services_are_apart(
    command: Callable[..., Service], variable: str, arguments: tuple[str, ...]
) -> None:
    line = await complaint(command(*arguments, **{variable: "memory"}))

    assert f"{variable}=memory" in line
    assert "clinic run --in-process" in line


async def test_events_that_end_with_the_process_are_refused_where_appointments_last(
    command: Callable[..., Service],
) -> None:
    line = await complaint(command("run", "--in-process", CLINIC_STORE="sqlite", CLINIC_TRANSPORT="memory"))

    assert "CLINIC_TRANSPORT=memory" in line
    assert "CLINIC_STORE=memory" in line


@pytest.mark.parametrize(
    ("service", "file"),
    [
        ("appointment", "appointment.db"),
        ("appointment", "events.db"),
        ("financial", "financial.db"),
        ("financial", "events.financial.db"),
    ],
)
async def test_a_file_that_newer_code_has_written_is_refused_and_left_alone(
    command: Callable[..., Service], pair: Pair, service: str, file: str
) -> None:
    pair.data.mkdir()
    _write_version(pair.data / file, 99)

    line = await complaint(command("run", service))

    assert str(pair.data / file) in line
    assert "newer" in line
    assert _version(pair.data / file) == 99


def _write_version(path: Path, version: int) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={version}")
    connection.close()


def _version(path: Path) -> int:
    connection = sqlite3.connect(path)
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return int(found)


async def test_a_folder_that_cannot_be_made_is_named(command: Callable[..., Service], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    line = await complaint(command("run", "appointment", CLINIC_DATA_DIR=str(tmp_path / "file" / "data")))

    assert str(tmp_path / "file") in line
    assert "CLINIC_DATA_DIR" in line


async def test_a_file_that_is_no_database_is_named(command: Callable[..., Service], pair: Pair) -> None:
    pair.data.mkdir()
    (pair.data / "appointment.db").write_bytes(b"not a database at all" * 1000)

    assert "appointment.db" in await complaint(command("run", "appointment"))


async def test_a_dotenv_file_is_read_and_the_environment_goes_before_it(
    command: Callable[..., Service], pair: Pair
) -> None:
    (pair.folder / ".env").write_text("CLINIC_PRICING=by-mood\n")

    assert "CLINIC_PRICING=by-mood" in await complaint(command("run", "appointment"))
    service = command("run", "appointment", name="overridden", CLINIC_PRICING="pro-rata")
    await service.started()
    assert await service.stopped() == 0


async def test_an_unknown_word_is_answered_with_the_usage(command: Callable[..., Service]) -> None:
    process = command("dance")
    process.start()

    assert await process.ended() == 2
    assert re.match(r"usage: clinic .*", process.complained)
    assert "Traceback" not in process.complained


OPTIONAL = (
    "adapters/kafka",
    "adapters/memory",
    "adapters/mongo",
    "entrypoints/console",
    "entrypoints/otel",
    "entrypoints/watcher",
)
"""Folders that are imported only where a setting chooses them. A room that can stay closed belongs here."""


async def test_without_each_folder_that_is_not_chosen_both_services_start(
    command: Callable[..., Service], tmp_path: Path
) -> None:
    """All are removed at once: what needed one of them would fail, and one start is enough."""
    ours = tmp_path / "clinic"  # found before the installed one, since the command runs in this folder
    shutil.copytree(Path(clinic.__file__).parent, ours)
    (ours / "__init__.py").write_text("open('imported', 'w').close()\n")
    for folder in OPTIONAL:
        shutil.rmtree(ours / folder)
    service = command("run", CLINIC_AUDIT_EVERY="1s")
    service.start()

    await service.ready()

    assert (tmp_path / "imported").exists()
    assert await service.stopped() == 0
