"""Lines that are queued: whoever logs never waits and never fails, and what is lost is counted."""

import os
import sys
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
import structlog
from prometheus_client import generate_latest

from clinic.entrypoints import log_writer
from clinic.entrypoints.log_writer import MAX_LINE, MAX_QUEUED, LogWriter, QueuedStream
from clinic.entrypoints.settings import load
from clinic.entrypoints.telemetry import LoggingTelemetry, configure_logging

LINE = "x" * 1000 + "\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's two ends; a test may close either."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


class Disk:
    """Takes nothing while it is full, like a disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, full: bool) -> None:
        self.full = full
        self.tried = threading.Event()
        self.text = b""
        monkeypatch.setattr(os, "write", self.write)

    def write(self, _: int, line: bytes) -> int:
        self.tried.set()
        if self.full:
            raise OSError(28, "No space left on device")
        self.text += line
        return len(line)


def test_what_nobody_reads_is_dropped_and_counted_and_nobody_waits(pipe: tuple[int, int]) -> None:
    writer, reported = LogWriter(pipe[1]), list[int]()
    writer.recovered = reported.append
    begun = monotonic()
    for _ in range(3000):
        writer.write(LINE)
    writer.drain()
    assert monotonic() - begun < 3
    lost = writer.dropped
    assert 3000 - (MAX_QUEUED + 100_000) // len(LINE) <= lost < 3000

    left = (3000 - lost) * len(LINE)
    while left:
        left -= len(os.read(pipe[0], left))
    writer.write(LINE)
    writer.drain(10)
    assert sum(reported) == lost


def test_an_urgent_line_goes_first_also_when_the_queue_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, writer = Disk(monkeypatch, full=True), LogWriter(9)
    writer.write("held\n")
    assert disk.tried.wait(10)
    for _ in range(3000):
        writer.write(LINE)
    writer.write("why\n", urgent=True)
    disk.full = False
    writer.drain(10)
    assert disk.text.startswith(b"held\nwhy\nxxx")


def test_nothing_is_lost_on_a_disk_that_is_full_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, writer = Disk(monkeypatch, full=True), LogWriter(9)
    for number in range(10):
        writer.write(f"{number}\n")
    assert disk.tried.wait(10)
    disk.full = False
    writer.drain(10)
    assert disk.text == b"".join(b"%d\n" % number for number in range(10))
    assert writer.dropped == 0


def test_on_a_disk_that_stays_full_lines_are_dropped_until_it_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_writer, "RETRY_TIMEOUT", 0.0)
    disk, writer = Disk(monkeypatch, full=True), LogWriter(9)
    reported: list[int] = []
    writer.recovered = reported.append
    for _ in range(10):
        writer.write("lost\n")
    writer.drain(30)
    assert writer.dropped == 10
    disk.full = False
    writer.write("written\n")
    writer.drain(10)
    assert (disk.text, reported) == (b"written\n", [10])


@pytest.mark.parametrize("closed", [0, 1])
def test_a_reader_that_is_gone_or_a_closed_descriptor_is_survived(
    pipe: tuple[int, int], closed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "RETRY_TIMEOUT", 0.0)
    writer = LogWriter(pipe[1])
    os.close(pipe[closed])
    for _ in range(10):
        writer.write(LINE)
    writer.drain(30)
    assert writer.dropped == 10


def test_a_line_is_cut_and_a_lone_surrogate_is_written_out(pipe: tuple[int, int]) -> None:
    writer = LogWriter(pipe[1])
    writer.write("\ud800\n")
    writer.drain(10)
    assert os.read(pipe[0], 100) == b"\\ud800\n"
    writer.write("y" * 10 * MAX_LINE)
    seen = b""
    while not seen.endswith(b"[cut]\n"):
        seen += os.read(pipe[0], MAX_LINE)
    assert len(seen) < MAX_LINE + 10


def test_its_thread_starts_again_after_a_fork(pipe: tuple[int, int]) -> None:
    writer = LogWriter(pipe[1])
    writer.write("parent\n")
    writer.drain(10)
    child = os.fork()
    if not child:
        writer.write("child\n")
        writer.drain(10)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(pipe[0], 100) == b"parent\nchild\n"


class Odd:
    def __repr__(self) -> str:
        raise ValueError("it cannot be shown")

    __str__ = __repr__


@pytest.fixture
def telemetry(pipe: tuple[int, int], request: pytest.FixtureRequest) -> Iterator[LoggingTelemetry]:
    before = structlog.get_config()
    writer = LogWriter(pipe[1])
    configure_logging(load({"CLINIC_LOG_FORMAT": request.param}), writer)
    yield LoggingTelemetry("test", writer)
    structlog.configure(**before)


@pytest.mark.parametrize("telemetry", ["console", "json"], indirect=True)
@pytest.mark.parametrize("detail", [Odd(), {"deep": Odd()}, "\ud800", "z" * 10_000_000])
def test_odd_details_never_raise(telemetry: LoggingTelemetry, detail: Any, pipe: tuple[int, int]) -> None:
    telemetry("published", detail=detail)
    telemetry.failed("unforeseen", ValueError(detail))
    telemetry("after", detail="fine")
    seen = b""
    while b"fine" not in seen:
        seen += os.read(pipe[0], MAX_LINE)


@pytest.mark.parametrize("telemetry", ["console", "json"], indirect=True)
def test_what_cannot_be_formatted_is_counted_in_the_metrics(telemetry: LoggingTelemetry) -> None:
    telemetry("published", detail=Odd())
    assert b"clinic_log_dropped_total 1.0" in generate_latest(telemetry.registry)


def test_a_queued_stream_takes_what_prints_and_warns(pipe: tuple[int, int]) -> None:
    writer = LogWriter(pipe[1])
    stream = QueuedStream(writer)
    print("one", "two", file=stream)
    stream.write("half")
    stream.flush()
    writer.drain(10)
    assert os.read(pipe[0], 100) == b"one two\nhalf"
    assert sys.stderr is not stream


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_ends_is_replaced_and_keeps_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, writer = Disk(monkeypatch, full=False), LogWriter(9)

    def unforeseen(_: int, __: bytes) -> int:
        raise GeneratorExit

    monkeypatch.setattr(os, "write", unforeseen)
    writer.write("lost\n")
    assert writer._thread  # noqa: SLF001
    writer._thread.join(10)  # noqa: SLF001
    assert writer.dropped == 1

    monkeypatch.setattr(os, "write", disk.write)
    writer.write("kept\n")
    writer.drain(10)
    assert (disk.text, writer._size) == (b"kept\n", 0)  # noqa: SLF001
