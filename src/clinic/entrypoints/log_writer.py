"""Lines to a standard stream, written by a thread of its own: no caller waits for a reader or a disk."""

import atexit
import contextlib
import io
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

MAX_LINE: Final = 64 * 1024
MAX_QUEUED: Final = 1024 * 1024
"""Bytes that wait to be written; a line that does not fit is dropped and counted."""
RETRY_INTERVAL: Final = 0.1
RETRY_TIMEOUT: Final = 5.0
"""Seconds for which writing may fail, on a full disk for example, before lines are dropped."""
DRAIN_TIMEOUT: Final = 0.5
"""Seconds that the end of the process waits for lines that are not yet written."""
CUT: Final = b" [cut]\n"


class LogWriter:
    """Writes to a descriptor. `write` never raises and never waits; `dropped` counts the lines that are lost.

    `recovered` is called from the writer's thread with the number of lines dropped, once lines can be written
    again. The thread starts with the first line, and again after a fork.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.dropped = 0
        self.recovered: Callable[[int], None] = lambda _: None
        self._reset()

    def write(self, text: str, *, urgent: bool = False) -> None:
        """Queue a line; an urgent one goes before all others, and is kept when the queue is full."""
        try:
            line = text[:MAX_LINE].encode(errors="backslashreplace")
            line = line[:MAX_LINE] + CUT if len(text) > MAX_LINE or len(line) > MAX_LINE else line
            if self._process != os.getpid():
                self._reset()
            with self._changed:
                self._queue(line, urgent=urgent)
                self._start()
                self._changed.notify_all()
        except Exception:  # noqa: BLE001 — nothing depends on a log, not even where no thread can be started
            self.drop()

    def drop(self, lines: int = 1) -> None:
        """Count lines that nobody will read."""
        self.dropped += lines

    def drain(self, timeout: float = DRAIN_TIMEOUT) -> None:
        """Return when all is written, or the time is over."""
        if self._process == os.getpid():
            with self._changed:
                self._changed.wait_for(lambda: not self._size, timeout)

    def _reset(self) -> None:
        self._process = os.getpid()
        self._size = 0
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()  # reentrant: a destructor may log while a line is queued
        self._urgent: deque[bytes] = deque()
        self._lines: deque[bytes] = deque()
        self._failing_since: float | None = None
        self._reported = self.dropped

    def _queue(self, line: bytes, *, urgent: bool) -> None:
        if self._size + len(line) > MAX_QUEUED * (2 if urgent else 1):
            self.drop()
            return
        self._size += len(line)
        (self._urgent if urgent else self._lines).append(line)

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
            self._thread.start()
            atexit.unregister(self.drain)
            atexit.register(self.drain)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._urgent or self._lines)
                line = (self._urgent or self._lines).popleft()
            is_written = False
            try:
                is_written = self._put(line)
            finally:  # also where this ends the thread: the next line starts another
                with self._changed:
                    self._size -= len(line)
                    self._changed.notify_all()
                self.drop(not is_written)
            if is_written and self._reported < self.dropped:
                lost, self._reported = self.dropped - self._reported, self.dropped
                with contextlib.suppress(Exception):
                    self.recovered(lost)

    def _put(self, line: bytes) -> bool:
        while line:
            try:
                line = line[os.write(self.descriptor, line) :]
                self._failing_since = None
            except BlockingIOError:  # the parent process made it non-blocking
                select.select([], [self.descriptor], [], RETRY_INTERVAL)
            except (BrokenPipeError, ValueError):
                return False
            except OSError:
                self._failing_since = self._failing_since or monotonic()
                if monotonic() - self._failing_since > RETRY_TIMEOUT:
                    return False
                threading.Event().wait(RETRY_INTERVAL)
        return True


class QueuedStream(io.TextIOBase):
    """A standard stream that queues its lines: for code that prints or warns by itself."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._rest = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._writer.descriptor

    def isatty(self) -> bool:
        with contextlib.suppress(OSError):
            return os.isatty(self._writer.descriptor)
        return False

    def write(self, text: str) -> int:
        lines, end, self._rest = (self._rest + text).rpartition("\n")
        if end:
            self._writer.write(lines + end)
        elif len(self._rest) > MAX_LINE:
            self.flush()
        return len(text)

    def flush(self) -> None:
        rest, self._rest = self._rest, ""
        if rest:
            self._writer.write(rest)


standard_error: Final = LogWriter(2)
standard_output: Final = LogWriter(1)


def queue_standard_streams() -> None:
    """From now on nothing in this process waits for the reader of its output, or fails with it."""
    sys.stdout, sys.stderr = QueuedStream(standard_output), QueuedStream(standard_error)
