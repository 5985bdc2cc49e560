"""What a running service writes for people who watch."""

import sys
from collections.abc import Iterator
from io import StringIO

import pytest
import structlog

from clinic.entrypoints.settings import Settings
from clinic.entrypoints.telemetry import LoggingTelemetry, configure_logging


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[StringIO]:
    """All that is logged while the test runs."""
    written = StringIO()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", written)
        configure_logging(Settings())
    yield written
    structlog.reset_defaults()


def test_a_strangers_text_does_not_steer_the_terminal(written: StringIO) -> None:
    LoggingTelemetry("financial")(
        "dead-lettered", reason="\x1b[2J\x07 gone\nsecond line", appointment_id="ok"
    )
    line = written.getvalue()
    assert "\x1b" not in line
    assert "\x07" not in line
    assert line.count("\n") == 1
    assert "gone" in line
    assert "appointment_id=ok" in line
