"""A service's log that goes wrong for a while: standard error leads elsewhere until the campaign mends it.

Lines may be lost meanwhile: see `evidence` for what does not rest on them.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Final

STANDARD_ERROR: Final = 2
LOOK_INTERVAL: Final = 0.02
CHUNK: Final = 65_536

Ends = tuple[int | None, int]
"""The end to read from once the log is mended, and the end that the service writes to."""


def break_log(how: str, mended: Path) -> None:
    """Return at once; a thread mends the log when that file is there."""
    own = os.dup(STANDARD_ERROR)
    reading, writing = BROKEN[how]()
    os.dup2(writing, STANDARD_ERROR)
    os.close(writing)
    Thread(target=_mend, args=(own, reading, mended), name="broken-log", daemon=True).start()


def _mend(own: int, reading: int | None, mended: Path) -> None:
    while not mended.exists():
        time.sleep(LOOK_INTERVAL)
    os.dup2(own, STANDARD_ERROR)
    if reading is not None:
        os.write(own, _drained(reading).lstrip(b"\n"))
        os.close(reading)
    os.close(own)


def _drained(reading: int) -> bytes:
    """All that was written, also by a writer that still waits for room."""
    return b"".join(iter(lambda: os.read(reading, CHUNK), b""))


def _full_disk() -> Ends:
    return None, os.open("/dev/full", os.O_WRONLY)


def _without_reader() -> Ends:
    reading, writing = os.pipe()
    os.close(reading)
    return None, writing


def _full_pipe() -> Ends:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"\n" * 1024)
    os.set_blocking(writing, True)
    return reading, writing


BROKEN: Final[Mapping[str, Callable[[], Ends]]] = {
    "log-unwritable": _full_disk,
    "log-reader-gone": _without_reader,
    "log-reader-stuck": _full_pipe,
}
