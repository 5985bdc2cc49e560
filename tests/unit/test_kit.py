"""The kit works where a stranger uses it: outside this repository, with none of its settings."""

import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
from clinic.entrypoints.technologies.memory import TRANSPORT
from clinic.testing.transports import TransportContract

class TestMine(TransportContract):
    transport = TRANSPORT
    always_answers = True
"""
WRONG = """

class TestDoubles(TransportContract):
    transport = TRANSPORT

    async def collected(self, subscription, expected):
        return await super().collected(subscription, expected) * 2
"""
ONCE = "test_what_was_published_arrives_once_where_nothing_goes_wrong"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text(
        '[pytest]\nfilterwarnings =\n    error\n    ignore:The configuration option "asyncio_default\n'
    )
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["clinic.testing"]\n')
    (tmp_path / "test_mine.py").write_text(SUITE + WRONG)
    return tmp_path


def run(folder: Path, *words: str) -> str:
    command = (sys.executable, "-m", "pytest", "-p", "no:schemathesis", "-p", "no:cacheprovider", *words)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_a_suite_of_five_lines_passes_and_a_failure_shows_its_values(folder: Path) -> None:
    told = run(folder, "-k", f"{ONCE} or cancelling or history", "--deselect", "test_mine.py::TestDoubles")
    assert "3 passed" in told, told
    told = run(folder, f"test_mine.py::TestDoubles::{ONCE}")
    assert "1 failed" in told, told
    assert "Left contains" in told, told
