"""Which stores and transports are installed: entry points, found by name and loaded when they are chosen."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from typing import Any, Final, Literal, TypeVar

from clinic.domain.errors import Misconfigured
from clinic.entrypoints.technologies.factories import Store, Transport

Kind = Literal["store", "transport"]
T = TypeVar("T")

GROUPS: Final[dict[Kind, str]] = {"store": "clinic.stores", "transport": "clinic.transports"}
NAME: Final = re.compile("[a-z][a-z0-9]*")
"""One word: no name's variables begin like those of another."""


def installed(kind: Kind) -> Sequence[EntryPoint]:
    """Those of this kind by name. Nothing of theirs is imported."""
    return points_by_kind()[kind]


@cache
def points_by_kind() -> dict[Kind, Sequence[EntryPoint]]:
    """Read once for all kinds: it looks into every distribution that is installed."""
    found = entry_points()
    return {kind: sorted(found.select(group=group), key=attrgetter("name")) for kind, group in GROUPS.items()}


def package(point: EntryPoint) -> str:
    """The distribution that brings it."""
    return point.dist.name if point.dist else "a package without a name"


def prefix(name: str) -> str:
    """How the variables of this technology begin."""
    return f"CLINIC_{name.upper()}_"


def problems(reserved: Collection[str]) -> Iterator[str]:
    """A sentence about each name that cannot be used; `reserved` are the names of the core's settings."""
    owners = defaultdict[str, set[str]](set)
    for kind in GROUPS:
        for point in installed(kind):
            owners[point.name].add(package(point))
    for name, packages in sorted(owners.items()):
        ours = " and ".join(sorted(packages))
        if len(packages) > 1:
            yield f"{name} is the name of a technology of {ours}: uninstall all but one of these packages"
        elif not NAME.fullmatch(name):
            yield f"{name!r}, a technology of {ours}, is no name: lower-case letters and digits make one"
        elif taken := [field for field in sorted(reserved) if f"{field}_".startswith(f"{name}_")]:
            yield (
                f"{name}, a technology of {ours}, cannot have this name: CLINIC_{taken[0].upper()} is a "
                f"setting of the clinic's own"
            )


def check(reserved: Collection[str]) -> None:
    """Raise `Misconfigured` for the first name that cannot be used, chosen or not."""
    for problem in problems(reserved):
        raise Misconfigured(problem)


def store(name: str) -> Store[Any]:
    """The store of that name. Raises `Misconfigured`."""
    return _loaded(_named("store", name), Store)


def transport(name: str) -> Transport[Any]:
    """The transport of that name. Raises `Misconfigured`."""
    return _loaded(_named("transport", name), Transport)


def _named(kind: Kind, name: str) -> EntryPoint:
    found = {point.name: point for point in installed(kind)}
    if name in found:
        return found[name]
    variable = f"CLINIC_{kind.upper()}={name}"
    if not found:
        raise Misconfigured(f"{variable} cannot be used: no package provides a {kind}; is clinic installed?")
    raise Misconfigured(f"{variable} cannot be used: choose one of {', '.join(found)}")


def load(point: EntryPoint) -> Store[Any] | Transport[Any]:
    """What it names, imported. Raises `Misconfigured`, with what to install where that is known."""
    is_store = point.group == GROUPS["store"]
    return _loaded(point, Store) if is_store else _loaded(point, Transport)


def _loaded(point: EntryPoint, type_: type[T]) -> T:
    try:
        found = point.load()
    except Exception as error:
        extra = needed(point, error)
        remedy = f": pip install '{extra}'" if extra else ""
        raise Misconfigured(f"{_described(point)} cannot be loaded: {_line(error)}{remedy}") from error
    if not isinstance(found, type_):
        raise Misconfigured(f"{_described(point)} cannot be used: {point.value} is no {type_.__name__}")
    return found


def needed(point: EntryPoint, error: BaseException | None) -> str:
    """What to install, where an extra of its package is missing; empty where something else is wrong."""
    extras = (point.dist.metadata.get_all("Provides-Extra") or ()) if point.dist else ()
    is_missing = isinstance(error, ModuleNotFoundError) and point.name in extras
    return f"{package(point)}[{point.name}]" if is_missing else ""


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _described(point: EntryPoint) -> str:
    return f"{point.name} of {package(point)}"
