"""The supervisor with tiny programs: a service that ends ends all, a watcher is started again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clinic.entrypoints.cli import supervisor
from clinic.entrypoints.cli.supervisor import Supervisor
from clinic.entrypoints.parent import PARENT
from clinic.entrypoints.settings import Settings

SLEEPS = (sys.executable, "-c", "import time; time.sleep(600)")
NOTES = "import sys; open(sys.argv[1], 'a').write('started\\n'); sys.exit(3)"
WAITS_FOR_THREE = """
import sys, time
while open(sys.argv[1]).read().count('started') < 3:
    time.sleep(0.01)
"""


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr("clinic.entrypoints.cli.supervisor._Watcher._pause", 0.01)
    notes = tmp_path / "notes"
    notes.touch()
    return notes


def test_a_service_that_ends_by_itself_ends_all(notes: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ends = (sys.executable, "-c", WAITS_FOR_THREE, str(notes))
    running = Supervisor(
        {"one": ends, "other": SLEEPS}, {"watcher": (sys.executable, "-c", NOTES, str(notes))}
    )
    running.start()

    assert running.run([]) == 1

    said = capfd.readouterr().err
    assert "the one service has ended (0)" in said
    assert said.count("the watcher ended (3); starting it again in") >= 2
    assert "again in 0.01 s" in said
    assert "again in 0.02 s" in said
    assert not running.is_running


def test_audit_and_console_are_watchers_unless_they_are_off_or_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = supervisor.watchers(Settings(audit_every="90s"))
    assert list(found) == ["audit", "console"]
    assert found["audit"][-3:] == ("audit", "--every", "90s")
    assert found["console"][-2:] == ("run", "console")
    assert list(supervisor.watchers(Settings(audit_every="off"))) == ["console"]
    assert list(supervisor.watchers(Settings(console="off"))) == ["audit"]
    monkeypatch.setattr(supervisor, "find_spec", lambda _: None)
    assert supervisor.watchers(Settings(audit_every="90s")) == {}


@pytest.mark.parametrize(
    "missing", ["clinic.entrypoints.console", "babel", "cryptography", "httpx", "jinja2"]
)
def test_the_console_is_no_watcher_where_something_of_it_is_missing(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "find_spec", lambda name: name != missing or None)
    assert list(supervisor.watchers(Settings())) == ["audit"]


def test_a_signal_ends_all_in_order() -> None:
    running = Supervisor({"one": SLEEPS}, {"watcher": SLEEPS})
    running.start()
    assert running.run([signal.SIGTERM]) == 0
    assert not running.is_running


def test_a_process_ends_when_the_pipe_of_its_parent_closes() -> None:
    read, write = os.pipe()
    program = "from clinic.entrypoints.parent import *; end_with_parent(); print('up', flush=True); input()"
    child = subprocess.Popen(
        (sys.executable, "-c", program),
        pass_fds=[read],
        env=os.environ | {PARENT: str(read)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout
    with child, child.stdout:
        assert child.stdout.readline() == b"up\n"
        assert child.poll() is None
        os.close(write)
        child.wait(20)
    os.close(read)
    assert child.returncode == -signal.SIGTERM


def test_a_watcher_that_cannot_be_started_ends_no_service(capfd: pytest.CaptureFixture[str]) -> None:
    running = Supervisor({"one": SLEEPS}, {"watcher": ("no-such-program",)})
    running.start()
    assert "the watcher cannot be started: [Errno 2]" in capfd.readouterr().err
    assert running.run([signal.SIGTERM]) == 0
