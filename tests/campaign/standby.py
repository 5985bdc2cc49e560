"""A service whose next process stands by: it has imported all that it needs, so that a restart takes a tenth
of a second.
"""

import contextlib
import subprocess

from support.processes import ENDS_TIMEOUT, Service


class Standby(Service):
    """Its command waits for a line on standard input before it does anything."""

    _next: subprocess.Popen[bytes] | None = None

    def start(self, *, with_keys: bool = True) -> None:
        super().start(with_keys=with_keys)
        self.press(b"go\n")

    def _spawned(self, *, with_keys: bool) -> subprocess.Popen[bytes]:
        ready, self._next = (
            self._next or super()._spawned(with_keys=with_keys),
            super()._spawned(with_keys=with_keys),
        )
        return ready

    def clean_up(self) -> None:
        super().clean_up()
        if self._next is not None:
            self._next.kill()
            self._next.wait(ENDS_TIMEOUT)
            with contextlib.suppress(OSError):
                assert self._next.stdin
                self._next.stdin.close()
