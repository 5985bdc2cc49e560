"""Which technology a setting names. A technology is imported when it is chosen, and not before."""

from pkgutil import resolve_name
from typing import Any, Final

from msgspec.structs import asdict

from clinic.entrypoints.settings import Settings
from clinic.entrypoints.technologies.factories import Store, Transport

STORES: Final = {
    "memory": "clinic.entrypoints.technologies.memory:STORE",
    "mongo": "clinic.entrypoints.technologies.mongo:STORE",
    "sqlite": "clinic.entrypoints.technologies.sqlite:STORE",
}
TRANSPORTS: Final = {
    "kafka": "clinic.entrypoints.technologies.kafka:TRANSPORT",
    "memory": "clinic.entrypoints.technologies.memory:TRANSPORT",
    "sqlite": "clinic.entrypoints.technologies.sqlite:TRANSPORT",
}


def store(settings: Settings) -> Store:
    """The factories of the store that is chosen."""
    factories: Store = resolve_name(STORES[settings.store])
    return factories


def transport(settings: Settings) -> Transport:
    """The factories of the transport that is chosen."""
    factories: Transport = resolve_name(TRANSPORTS[settings.transport])
    return factories


def options(settings: Settings, technology: str) -> dict[str, Any]:
    """The settings that begin with a technology's name, without it: its own."""
    prefix = f"{technology}_"
    return {
        name.removeprefix(prefix): value
        for name, value in asdict(settings).items()
        if name.startswith(prefix)
    }
