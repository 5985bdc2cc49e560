"""What a running service writes for people who watch."""

from collections.abc import Iterator

import pytest
import structlog
from support.logs import Written

from clinic.entrypoints.settings import Settings
from clinic.entrypoints.telemetry import MAX_DETAIL, LoggingTelemetry, configure_logging


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


def test_a_long_detail_is_cut_whoever_gives_it(written: Written) -> None:
    for log_format in ("console", "json"):
        configure_logging(Settings(log_format=log_format), written)
        LoggingTelemetry("financial")("skipped", type="x" * MAX_DETAIL, reason=lambda: "y" * 100_000)
    lines = written.getvalue()
    assert lines.count("x" * MAX_DETAIL) == lines.count("y" * MAX_DETAIL + " [cut]") == 2
    assert "x [cut]" not in lines
    assert "y" * (MAX_DETAIL + 1) not in lines


def test_only_an_error_goes_before_what_waits(written: Written) -> None:
    telemetry = LoggingTelemetry("financial")
    telemetry("charged")
    telemetry("consumer waits", reason="storm")
    assert written.urgent == ""
    telemetry.failed("could not start or end", RuntimeError("its files are gone"))
    assert "RuntimeError: its files are gone" in written.urgent


def test_a_detail_that_takes_time_is_made_only_where_a_line_is_written(written: Written) -> None:
    configure_logging(Settings(log_level="warning"), written)
    LoggingTelemetry("financial")("charged", total=lambda: pytest.fail("made for nobody"))
    LoggingTelemetry("financial")("differs from its charge", total=lambda: "400.00")
    assert "total=400.00" in written.getvalue()
