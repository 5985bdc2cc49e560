"""Commands where the terminal, or a person's keyboard, does not speak UTF-8."""

import json
import os
import subprocess
from pathlib import Path
from uuid import UUID

import pytest
from msgspec.structs import replace
from support.folders import Folder
from support.processes import PROGRAM

from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.testing.builders import TWO_O_CLOCK, a_letter, an_appointment

FINISHED = UUID("84ab6121-c4a8-4684-8cc2-b03024ec0f1d")


def command(
    folder: Path, *words: str | bytes, encoding: str = "utf-8", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """What a process of its own prints."""
    variables = os.environ | {"CLINIC_DATA_DIR": str(folder), "PYTHONIOENCODING": encoding} | environment
    return subprocess.run([*PROGRAM, *words], cwd=folder, env=variables, capture_output=True, check=False)


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A finished appointment that was never charged, and a letter with more than ASCII in it."""
    letter = a_letter(position="log/1", reason="für Jürgen 💩")

    async def fill(appointment: AppointmentContainer, financial: FinancialContainer) -> None:
        await appointment.appointments().add(replace(an_appointment(), id=FINISHED, end=TWO_O_CLOCK))
        await financial.dead_letters().add([letter])

    Folder(tmp_path, capsys).run(fill)
    return tmp_path


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize(
    ("words", "code", "printed"),
    [
        (("audit", "--repair", "--wait", "0"), 3, b"republished"),
        (("audit", "--repair", "--wait", "0", "--json"), 3, b'"outcome":"republished"'),
        (("dead-letters", "list"), 0, b"log/1"),
        (("dead-letters", "show", "log/1"), 0, b"log/1"),
        (("dead-letters", "replay", "--all"), 3, b"failed again"),
        (("dead-letters", "discard", "--all", "--reason", "für Jürgen →"), 0, b"1 discarded"),
        (("trace", str(FINISHED)), 0, b"finished"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else None,
)
def test_what_the_terminal_cannot_show_ends_no_command(
    folder: Path, encoding: str, words: tuple[str, ...], code: int, printed: bytes
) -> None:
    ended = command(folder, *words, encoding=encoding)
    assert ended.returncode == code, ended.stderr.decode(errors="replace")
    assert printed in ended.stdout
    assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_reads_back_in_every_encoding(folder: Path, encoding: str) -> None:
    listed = json.loads(command(folder, "dead-letters", "list", "--json", encoding=encoding).stdout.decode())
    assert listed["items"][0]["reason"] == "für Jürgen 💩"


def test_an_argument_that_is_not_text_is_refused_before_anything_is_done(folder: Path) -> None:
    ended = command(folder, "dead-letters", "discard", "--all", "--reason", "x", "--by", b"J\xfcrgen")
    assert ended.returncode == 2
    assert b"J\\udcfcrgen' cannot be used: its bytes are not UTF-8" in ended.stderr
    assert b"waiting" in command(folder, "dead-letters", "list").stdout


def test_a_login_that_is_not_text_is_refused_before_anything_is_done(folder: Path) -> None:
    login = os.fsdecode(b"J\xfcrgen")
    ended = command(folder, "dead-letters", "discard", "--all", "--reason", "x", LOGNAME=login)
    assert (ended.returncode, b"--by" in ended.stderr) == (1, True)
    assert b"waiting" in command(folder, "dead-letters", "list").stdout


def test_the_demo_never_goes_through_a_proxy(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    ended = command(
        tmp_path, "demo", encoding="ascii", http_proxy=nowhere, HTTP_PROXY=nowhere, all_proxy=nowhere
    )
    assert ended.returncode == 0, ended.stderr.decode()
