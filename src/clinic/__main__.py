"""`python -m clinic`, and the `clinic` command."""

import io
import os
import signal
import sys


def main() -> int:
    """Run the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the terminal cannot show ends no command
    # A Ctrl-C while the rest is being imported ends the process, as it does everywhere, and shows nobody a
    # traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from clinic.entrypoints.cli import main as cli  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = cli.main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read, `head` perhaps, has seen enough; what is left in the buffer goes nowhere when the
        # process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return code


if __name__ == "__main__":
    sys.exit(main())
