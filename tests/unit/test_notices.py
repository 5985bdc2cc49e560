"""What a running service writes for people who watch."""

import pytest

from clinic.entrypoints.notices import WatchedNotices, configure_logging
from clinic.entrypoints.settings import Settings


@pytest.fixture
def notices() -> WatchedNotices:
    configure_logging(Settings())
    return WatchedNotices("financial")


def test_a_strangers_text_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str], notices: WatchedNotices) -> None:
    notices("set aside", reason="\x1b[2J\x07 gone\nsecond line", appointment_id="ok")
    line = capsys.readouterr().err
    assert "\x1b" not in line
    assert "\x07" not in line
    assert line.count("\n") == 1
    assert "gone" in line
    assert "appointment_id=ok" in line
