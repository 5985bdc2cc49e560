"""Stores and transports of any package: found by name, loaded when chosen, refused with what to do."""

import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest

from clinic.domain.errors import Misconfigured
from clinic.entrypoints import discovery
from clinic.entrypoints.cli import main as cli
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.settings import load, unknown

PIGEON = """
from typing import Annotated
from msgspec import Meta, Struct
from clinic.entrypoints.technologies import memory
from clinic.entrypoints.technologies.factories import Secret, Transport

class PigeonSettings(Struct, frozen=True, kw_only=True):
    loft: str
    birds: Annotated[int, Meta(ge=1, description="How many there are.")] = 3
    key: Annotated[int, Secret] = 0

    def __post_init__(self) -> None:
        if self.birds > 9 and self.loft == "small":
            raise ValueError("a small loft has room for 9")

def _publisher(context):
    context.shared["loft"] = context.settings.loft
    return memory.TRANSPORT.publisher(context)

TRANSPORT = Transport(
    settings=PigeonSettings,
    publisher=_publisher,
    subscription=memory.TRANSPORT.subscription,
    channel=memory.TRANSPORT.channel,
    in_process=True,
)
"""
SET = {"CLINIC_TRANSPORT": "pigeon", "CLINIC_PIGEON_LOFT": "roof"}

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a package beside the installed ones, as pip leaves it: a module, and its metadata."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    put: list[str] = []

    def install(package: str, names: str, source: str = PIGEON, extra: str = "", kind: str = "") -> None:
        module = package.replace("-", "_")
        info = tmp_path / f"{module}-1.2.dist-info"
        info.mkdir()
        provides = f"Provides-Extra: {extra}\n" if extra else ""
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n{provides}")
        points = [f"{name} = {module}:TRANSPORT" for name in names.split()]
        (info / "entry_points.txt").write_text("\n".join([f"[clinic.{kind or 'transport'}s]", *points]))
        (tmp_path / f"{module}.py").write_text(source)
        put.append(module)
        discovery.points_by_kind.cache_clear()

    yield install
    monkeypatch.undo()
    discovery.points_by_kind.cache_clear()
    for module in put:
        sys.modules.pop(module, None)


def test_a_transport_of_another_package_is_chosen_by_its_name_alone(install: Install) -> None:
    install("clinic-pigeon", "pigeon")
    its = load(SET | {"CLINIC_PIGEON_BIRDS": "5"})
    container = AppointmentContainer(settings=its)
    container.publisher()
    assert container.shared() == {"loft": "roof", "memory_log": container.shared()["memory_log"]}
    assert getattr(its.transport_settings, "birds", None) == 5
    assert FinancialContainer(settings=its, shared=container.shared).subscription()


def test_only_what_is_chosen_is_imported(install: Install) -> None:
    install("clinic-pigeon", "pigeon", "raise AssertionError('imported')")
    given = {"CLINIC_PIGEON_LOFT": "roof", "CLINIC_PIGEON_BRIDS": "1", "CLINIC_PIGEN_LOFT": "1"}
    assert unknown(given, load(given)) == ["CLINIC_PIGEN_LOFT is not known here and has no effect"]
    assert "clinic_pigeon" not in sys.modules


def test_of_what_is_chosen_each_variable_is_known(install: Install) -> None:
    install("clinic-pigeon", "pigeon")
    given = SET | {"CLINIC_PIGEON_BRIDS": "1"}
    (sentence,) = unknown(given, load(given))
    assert sentence.endswith("did you mean CLINIC_PIGEON_BIRDS?")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"CLINIC_PIGEON_LOFT": ""}, "CLINIC_PIGEON_LOFT is not set, and has no default"),
        ({"CLINIC_PIGEON_BIRDS": "none"}, "CLINIC_PIGEON_BIRDS=none cannot be used"),
        ({"CLINIC_PIGEON_BIRDS": "0"}, "CLINIC_PIGEON_BIRDS=0 cannot be used"),
        ({"CLINIC_PIGEON_LOFT": "small", "CLINIC_PIGEON_BIRDS": "10"}, "a small loft has room for 9"),
        ({"CLINIC_TRANSPORT": "dove"}, "CLINIC_TRANSPORT=dove .* one of kafka, memory, pigeon, sqlite$"),
        ({"CLINIC_STORE": "pigeon"}, "CLINIC_STORE=pigeon .* one of memory, mongo, sqlite$"),
    ],
)
def test_what_is_set_wrong_is_named(install: Install, wrong: dict[str, str], says: str) -> None:
    install("clinic-pigeon", "pigeon")
    with pytest.raises(Misconfigured, match=says):
        load(SET | wrong)


def test_a_secret_of_a_technology_is_not_repeated(install: Install) -> None:
    install("clinic-pigeon", "pigeon")
    with pytest.raises(Misconfigured, match="CLINIC_PIGEON_KEY cannot be used") as raised:
        load(SET | {"CLINIC_PIGEON_KEY": "hunter2"})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("kind", ["transport", "store"])
def test_two_packages_with_one_name_stop_every_start(install: Install, kind: str) -> None:
    install("clinic-pigeon", "pigeon")
    install("other-birds", "pigeon", kind=kind)
    with pytest.raises(Misconfigured, match=r"pigeon is .* of clinic-pigeon and other-birds: uninstall"):
        load({})


def test_no_package_takes_the_name_of_a_built_in_technology(install: Install) -> None:
    install("clinic-files", "sqlite")
    with pytest.raises(Misconfigured, match=r"sqlite is .* of clinic and clinic-files: uninstall"):
        load({})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("log", "CLINIC_LOG_FORMAT"),
        ("store", "CLINIC_STORE"),
        ("operator", "CLINIC_OPERATOR_TOKEN"),
        ("test", "CLINIC_TEST"),
        ("Pigeon", "lower-case"),
        ("carrier-pigeon", "lower-case"),
        ("carrier_pigeon", "lower-case"),
    ],
)
def test_a_name_that_no_variables_can_begin_with_is_refused(install: Install, name: str, says: str) -> None:
    install("clinic-pigeon", name)
    with pytest.raises(Misconfigured, match=f"{name}'?, a technology of clinic-pigeon, .*{says}"):
        load({})


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            "import no_such_client",
            "No module named 'no_such_client': pip install 'clinic-pigeon\\[pigeon\\]'$",
        ),
        ("raise RuntimeError('wet\\nfeathers')", "pigeon of clinic-pigeon cannot be loaded: wet feathers$"),
        ("TRANSPORT = 7", "clinic_pigeon:TRANSPORT is no Transport$"),
        ("", "has no attribute 'TRANSPORT'$"),
    ],
)
def test_what_cannot_be_loaded_is_named_with_what_to_do(install: Install, source: str, says: str) -> None:
    install("clinic-pigeon", "pigeon", source, extra="pigeon")
    with pytest.raises(Misconfigured, match=says) as raised:
        load(SET)
    assert "\n" not in str(raised.value)


def test_plugins_lists_what_is_installed(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("clinic-pigeon", "pigeon")
    assert cli.main(["plugins"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [" ".join(line.split()) for line in lines]
    assert (
        "transport pigeon clinic-pigeon 1.2 Publisher, Subscription in one process, several members a group"
        in rows
    )
    assert len(rows) == 1 + 3 + 4


def test_plugins_says_what_cannot_be_used(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("clinic-pigeon", "pigeon log", "import no_such_client")
    assert cli.main(["plugins"]) == 1
    printed = capsys.readouterr()
    assert "cannot be loaded" in printed.out
    assert "CLINIC_LOG_FORMAT is a setting" in printed.err
    assert "No module named 'no_such_client'" in printed.err


def test_a_client_that_is_not_installed_is_no_problem_until_it_is_chosen(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("clinic-pigeon", "pigeon", "import no_such_client", extra="pigeon")
    assert cli.main(["plugins"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "clinic-pigeon" in line]
    assert row.endswith("needs clinic-pigeon[pigeon]")


def test_settings_lists_each_variable_with_its_value_and_hides_secrets(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("clinic-pigeon", "pigeon")
    for name, value in (SET | {"CLINIC_PIGEON_KEY": "7777", "CLINIC_LEASE": "4"}).items():
        monkeypatch.setenv(name, value)
    assert cli.main(["settings"]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert {"CLINIC_LEASE=4.0", "CLINIC_PIGEON_LOFT=roof", "CLINIC_OPERATOR_TOKEN="} <= {*lines}
    assert lines[lines.index("CLINIC_PIGEON_BIRDS=3") - 1] == "# How many there are."
    assert "# CLINIC_PIGEON_KEY is set, and secret" in lines
    assert "7777" not in printed
    assert "# CLINIC_KAFKA_... is read where kafka is chosen" in lines
    assert not [line for line in lines if "sqlite..." in line]


def test_the_package_alone_depends_on_no_client_of_a_server() -> None:
    wanted = requires("clinic") or []
    clients = {each for each in wanted if each.startswith(("confluent-kafka", "pymongo"))}
    assert len(clients) == 2
    assert all("extra ==" in each for each in clients)
    assert not [each for each in wanted if re.match("django|drf", each, re.IGNORECASE)]


@pytest.mark.parametrize("kind", ["store", "transport"])
def test_every_choice_has_a_provider_of_every_port_and_setting(kind: discovery.Kind, tmp_path: Path) -> None:
    for point in discovery.installed(kind):
        its = load({f"CLINIC_{kind.upper()}": point.name, "CLINIC_DATA_DIR": str(tmp_path)})
        appointment, financial = AppointmentContainer(settings=its), FinancialContainer(settings=its)
        for container in (appointment, financial):
            for name, provider in container.providers.items():
                assert provider() is not None or name == "watched_folder", name
