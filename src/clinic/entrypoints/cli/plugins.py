"""`clinic plugins`: the stores and transports that are installed, whichever package brings them."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any, Final

from clinic.domain.errors import Misconfigured
from clinic.entrypoints import discovery
from clinic.entrypoints.settings import RESERVED
from clinic.entrypoints.technologies.factories import Transport
from clinic.entrypoints.telemetry import plain

PORTS: Final = {
    "store": "Appointments, Outbox, Charges, DeadLetters",
    "transport": "Publisher, Subscription",
}


def add_to(commands: Any) -> None:
    """Add `plugins` to the commands."""
    show = commands.add_parser("plugins", help="list the stores and transports that are installed")
    show.set_defaults(command=plugins, needs_settings=False)


def plugins() -> int:
    """Print a line for each. Returns 1 where one of them cannot be used, and says why."""
    rows = [("KIND", "NAME", "PACKAGE", "PORTS", "FEATURES")]
    problems = list(discovery.problems(RESERVED))
    for kind in discovery.GROUPS:
        for point in discovery.installed(kind):
            features = ", ".join(_features(point, problems))
            version = point.dist.version if point.dist else ""
            rows.append((kind, point.name, f"{discovery.package(point)} {version}", PORTS[kind], features))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        sys.stdout.write(plain("  ".join(cells).rstrip()) + "\n")
    for problem in problems:
        sys.stderr.write(f"clinic: {plain(problem)}\n")
    return 1 if problems else 0


def _features(point: EntryPoint, problems: list[str]) -> Iterator[str]:
    """What it declares; where it cannot be loaded, a problem more."""
    try:
        found = discovery.load(point)
    except Misconfigured as problem:
        if extra := discovery.needed(point, problem.__cause__):
            yield f"needs {extra}"
            return
        problems.append(str(problem))
        yield "cannot be loaded"
        return
    yield "in one process" if found.in_process else "in several processes"
    if isinstance(found, Transport):
        yield "one member a group" if found.one_member else "several members a group"
    if found.in_data_dir:
        yield "files in CLINIC_DATA_DIR"
