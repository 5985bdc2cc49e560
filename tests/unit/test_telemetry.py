"""What a running service writes for people who watch."""

from collections.abc import Iterator

import pytest
import structlog
from support.logs import Written

from clinic.entrypoints.settings import Settings
from clinic.entrypoints.telemetry import LoggingTelemetry, configure_logging


@pytest.fixture
def written() -> Iterator[Written]:
    """All that is logged while the test runs."""
    written = Written()
    configure_logging(Settings(), written)
    yield written
    structlog.reset_defaults()


def test_foreign_text_does_not_steer_the_terminal(written: Written) -> None:
    LoggingTelemetry("financial")(
        "dead-lettered", reason="\x1b[2J\x07 gone\nsecond line", appointment_id="ok"
    )
    line = written.getvalue()
    assert "\x1b" not in line
    assert "\x07" not in line
    assert line.count("\n") == 1
    assert "gone" in line
    assert "appointment_id=ok" in line
