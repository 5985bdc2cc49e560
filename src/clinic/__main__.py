"""`python -m clinic`, and the `clinic` command."""

import signal
import sys


def main() -> int:
    """Run the command."""
    # A Ctrl-C while the rest is being imported ends the process, as it does everywhere, and shows nobody a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from clinic.entrypoints import cli  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return cli.main()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
