"""Everything that can be set, read once. `.env.example` lists the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from clinic.domain.errors import Misconfigured, Refused
from clinic.domain.money import Money

PREFIX = "CLINIC_"
OF_TESTS = PREFIX + "TEST_"

Port = Annotated[int, Meta(ge=1, le=65535)]
Token = Annotated[str, Meta(min_length=16)]


class Settings(Struct, frozen=True, kw_only=True):
    """Each field is read from the variable of its name in capitals, behind CLINIC_."""

    store: Literal["sqlite", "mongo", "memory"] = "sqlite"
    transport: Literal["sqlite", "kafka", "memory"] = "sqlite"
    data_dir: Path = Path("var")
    hourly_price: Money = Money("200.00")
    pricing: Literal["hours-begun", "whole-hours", "pro-rata"] = "hours-begun"
    lease: Annotated[float, Meta(ge=0.1, le=3600)] = 3.0
    appointment_host: str = "127.0.0.1"
    appointment_port: Port = 8000
    financial_host: str = "127.0.0.1"
    financial_port: Port = 8001
    operator_token: Token = ""
    mongo_url: str = "mongodb://127.0.0.1:27017"
    mongo_database: str = "clinic"
    mongo_timeout: Annotated[float, Meta(ge=0.1, le=60)] = 5.0
    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    kafka_topic: str = "clinic.appointments"
    kafka_group: str = "financial"
    kafka_partitions: Annotated[int, Meta(ge=1)] = 6
    kafka_replication: Annotated[int, Meta(ge=1)] = 1
    kafka_protocol: Literal["classic", "consumer"] = "classic"
    kafka_options: dict[str, str] = {}
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"


def load(environment: Mapping[str, str]) -> Settings:
    """The settings that these variables make; an empty one counts as unset. Raises `Misconfigured`, naming
    the variable.
    """
    fields = {PREFIX + field.name.upper(): field for field in msgspec.structs.fields(Settings)}
    given = {name: text for name, text in environment.items() if name in fields and text}
    return Settings(
        **{fields[name].name: _value(name, text, fields[name].type) for name, text in given.items()}
    )


def unknown(environment: Mapping[str, str]) -> list[str]:
    """The variables that look like settings and are none: misspelt, most likely."""
    known = {PREFIX + field.name.upper() for field in msgspec.structs.fields(Settings)}
    return sorted(
        name
        for name in environment
        if name.startswith(PREFIX) and not name.startswith(OF_TESTS) and name not in known
    )


def _value(name: str, text: str, kind: Any) -> Any:
    if get_origin(kind) is dict:
        return _options(name, text, kind)
    try:
        return msgspec.convert(text, kind, strict=False, dec_hook=_read)
    except (msgspec.ValidationError, Refused) as error:
        if kind is Token:  # a secret, or what was meant to be one, is not repeated
            raise Misconfigured(
                f"{name} cannot be used: give at least 16 characters, or none to do without"
            ) from None
        raise Misconfigured(f"{name}={text} cannot be used: {_choices(kind) or error}") from error


def _options(name: str, text: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError:
        # Neither the text nor the decoder's words are repeated: options may hold secrets.
        raise Misconfigured(
            f'{name} cannot be used: write a JSON object of texts, like {{"security.protocol": "SSL"}}'
        ) from None


def _read(kind: type, text: str) -> Any:
    if kind is Money:
        return Money(text)
    if kind is Path:
        return Path(text)
    raise NotImplementedError(kind)


def _choices(kind: Any) -> str | None:
    return f"choose one of {', '.join(get_args(kind))}" if get_origin(kind) is Literal else None
