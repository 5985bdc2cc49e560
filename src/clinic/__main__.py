"""`python -m clinic`, and the `clinic` command."""

import io
import os
import signal
import sys

from clinic.entrypoints.parent import end_with_parent


def main() -> int:
    """Run the command."""
    _open_missing_streams()
    end_with_parent()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the terminal cannot show ends no command
    # A Ctrl-C while the rest is being imported ends the process without a traceback. If Ctrl-C is ignored,
    # the parent process wanted it so.
    hears_ctrl_c = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if hears_ctrl_c:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from clinic.entrypoints.cli import main as cli  # noqa: PLC0415

    if hears_ctrl_c:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = cli.main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader, `head` perhaps, has seen enough: what is left in the buffer is discarded.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return code


def _open_missing_streams() -> None:
    # If one was closed, the next open file would get its number, and all that is printed.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 — standard error
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


if __name__ == "__main__":
    sys.exit(main())
