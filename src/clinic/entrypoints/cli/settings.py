"""`clinic settings`: every variable that is read, with its value, as a `.env` file would hold them."""

import argparse
import sys
from typing import Any

import msgspec
from msgspec.structs import FieldInfo

from clinic.entrypoints import discovery
from clinic.entrypoints.settings import Settings, is_secret, variables
from clinic.entrypoints.telemetry import plain


def add_to(commands: Any) -> None:
    """Add `settings` to the commands."""
    show = commands.add_parser("settings", help="list every setting with the value that it has now")
    show.set_defaults(command=shown)


def shown(settings: Settings, _args: argparse.Namespace) -> None:
    """Print a line for each; a secret one that differs from its default is hidden."""
    for name, (field, value) in variables(settings).items():
        for meta in getattr(field.type, "__metadata__", ()):
            if meta.description:
                _print(f"# {meta.description}")
        is_hidden = is_secret(field.type) and value != _default(field)
        _print(f"# {name} is set, and secret" if is_hidden else f"{name}={_written(value)}")
    chosen = {settings.store, settings.transport}
    points = [point for kind in discovery.GROUPS for point in discovery.installed(kind)]
    for name in sorted({point.name for point in points} - chosen):
        _print(f"# {discovery.prefix(name)}... is read where {name} is chosen")


def _print(line: str) -> None:
    sys.stdout.write(plain(line) + "\n")


def _default(field: FieldInfo) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default


def _written(value: object) -> str:
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else str(value)
