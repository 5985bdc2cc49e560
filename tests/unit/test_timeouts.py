"""A test that hangs is ended, and says what it waited for."""

import subprocess
import sys
from pathlib import Path

HANGING = """
import asyncio
import pytest

@pytest.mark.timeout(1)
async def test_that_hangs() -> None:
    asyncio.create_task(asyncio.Event().wait(), name="somebody")
    await asyncio.Event().wait()

async def test_that_goes_on() -> None:
    pass
"""


def test_a_test_that_hangs_is_ended_with_what_it_waited_for(tmp_path: Path) -> None:
    (tmp_path / "test_hanging.py").write_text(HANGING)
    (tmp_path / "conftest.py").write_bytes((Path(__file__).parents[1] / "conftest.py").read_bytes())
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\ntimeout = 60\ntimeout_method = thread\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed, 1 passed" in ended.stdout
    assert "not over after 1 s" in ended.stdout
    assert "somebody" in ended.stdout
