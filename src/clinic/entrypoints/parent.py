"""How a service ends with `clinic run`: by a pipe, whose other end closes however that process ends."""

import os
import signal
import threading

PARENT = "_CLINIC_PARENT"
"""Names the descriptor to read, in the child's environment."""
STOP_TIMEOUT = 10


def end_with_parent() -> None:
    """Ask this process to end when its parent's end of the pipe closes; without such a pipe, do nothing."""
    descriptor = os.environ.pop(PARENT, "")
    if descriptor.isdecimal():
        threading.Thread(target=_watch, args=[int(descriptor)], name="parent", daemon=True).start()


def _watch(descriptor: int) -> None:
    try:
        os.set_inheritable(descriptor, False)
        os.read(descriptor, 1)
    except OSError:
        return  # not a descriptor of ours
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(STOP_TIMEOUT)
    os._exit(1)
