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


def test_a_detail_that_takes_time_is_made_only_where_a_line_is_written(written: Written) -> None:
    configure_logging(Settings(log_level="warning"), written)
    LoggingTelemetry("financial")("charged", total=lambda: pytest.fail("made for nobody"))
    LoggingTelemetry("financial")("differs from its charge", total=lambda: "400.00")
    assert "total=400.00" in written.getvalue()
