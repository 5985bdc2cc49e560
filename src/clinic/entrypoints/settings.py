"""Everything that can be set, read once. `.env.example` lists the same."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from dotenv.parser import Binding, parse_stream
from msgspec import Meta, Struct

from clinic.domain.errors import Misconfigured, Refused
from clinic.domain.money import Money

PREFIX = "CLINIC_"
OF_TESTS = PREFIX + "TEST_"

MAX_PRICE = Money("1000000.00")
"""Per hour: beyond it the total of a long appointment would be more than can be charged."""

Port = Annotated[int, Meta(ge=1, le=65535)]
Token = Annotated[str, Meta(min_length=16, pattern=r"^[!-~]*$")]
"""What can be sent in a header: a line break or an umlaut in it would never match."""
Every = Annotated[str, Meta(pattern=r"^(off|[1-9][0-9]{0,3}[smh])$")]
"""How often the standing audit of `clinic run` looks, like 5m; off: it does not run."""
Group = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]+$", max_length=200)]
"""It names files and Kafka's consumer group."""
Topic = Annotated[str, Meta(pattern=r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}$")]
"""What Kafka takes as a topic's name."""
Partitions = Annotated[int, Meta(ge=1, le=10_000)]
"""As many as Kafka makes with one request."""
Replication = Annotated[int, Meta(ge=1, le=32_767)]
"""Kafka's protocol has 16 bits for it."""


class Settings(Struct, frozen=True, kw_only=True):
    """Each field is read from the variable of its name in capitals, behind CLINIC_."""

    store: Literal["sqlite", "mongo", "memory"] = "sqlite"
    transport: Literal["sqlite", "kafka", "memory"] = "sqlite"
    data_dir: Path = Path("var")
    hourly_price: Money = Money("200.00")
    pricing: Literal["hours-begun", "whole-hours", "pro-rata"] = "hours-begun"
    consumer_group: Group = "financial"
    lease: Annotated[float, Meta(ge=0.1, le=3600)] = 3.0
    appointment_host: str = "127.0.0.1"
    appointment_port: Port = 8000
    financial_host: str = "127.0.0.1"
    financial_port: Port = 8001
    audit_host: str = "127.0.0.1"
    audit_port: Port = 8011
    audit_every: Every = "5m"
    keep_alive: Annotated[int, Meta(ge=1, le=3600)] = 75
    operator_token: Token = ""
    mongo_url: str = "mongodb://127.0.0.1:27017"
    mongo_database: str = "clinic"
    mongo_timeout: Annotated[float, Meta(ge=0.1, le=60)] = 5.0
    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    kafka_topic: Topic = "clinic.appointments"
    kafka_partitions: Partitions = 6
    kafka_replication: Replication = 1
    kafka_protocol: Literal["classic", "consumer"] = "classic"
    kafka_options: dict[str, str] = {}
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"


def url(host: str, port: int) -> str:
    """The URL of a service on this address; an IPv6 address goes in brackets (RFC 3986, 3.2.2)."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def environment(file: Path = Path(".env")) -> dict[str, str]:
    """The lines of this file, if there is one, and over them the variables of the environment.

    Values are taken literally: nothing in them is expanded. Raises `Misconfigured` for a line that cannot be
    read, sets a name without a value, sets it again, or stands within the quotes of another.
    """
    return _lines(file) | os.environ


def _lines(file: Path) -> dict[str, str]:
    try:
        with file.open(encoding="utf-8-sig") as stream:
            bindings = list(parse_stream(stream))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{file} cannot be read: {error}") from error
    found = dict[str, str]()
    for binding in bindings:
        name = binding.key or ""
        is_ours = name.upper().startswith(PREFIX)
        if binding.error or (is_ours and binding.value is None):
            raise Misconfigured(f"{file}, line {_line(binding)} cannot be read: write NAME=value")
        if re.search(rf"\n\s*(export\s+)?{PREFIX}", binding.value or "", re.IGNORECASE):
            raise Misconfigured(
                f"{file}, line {_line(binding)} opens a quote that ends behind other settings"
            )
        if is_ours and name in found:
            raise Misconfigured(f"{file}, line {_line(binding)} sets {name} again: keep one of the lines")
        if name and binding.value is not None:
            found[name] = binding.value
    return found


def _line(binding: Binding) -> int:
    # The parser's line is where it began to read: before the empty lines that it skips.
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def load(environment: Mapping[str, str]) -> Settings:
    """The settings that these variables make.

    An empty one counts as unset, and space around a value does not count: a secret read from a file often
    ends with a line break. Raises `Misconfigured`, naming the variable.
    """
    fields = {PREFIX + field.name.upper(): field for field in msgspec.structs.fields(Settings)}
    given = {name: text.strip() for name, text in environment.items() if name in fields and text.strip()}
    return Settings(
        **{fields[name].name: _value(name, text, fields[name].type) for name, text in given.items()}
    )


def unknown(environment: Mapping[str, str]) -> list[str]:
    """A sentence about each variable that looks like a setting and is not: misspelt, most likely."""
    known = {PREFIX + field.name.upper() for field in msgspec.structs.fields(Settings)}
    return [
        f"{name} is not known here and has no effect{_meant(name, known)}"
        for name in sorted(environment.keys() - known)
        if not name.startswith(OF_TESTS) and _resembles(_plain(name), known)
    ]


def _resembles(name: str, known: Iterable[str]) -> bool:
    # A search for every variable of the environment would take longer than all else at a start.
    return name.startswith(PREFIX) or ("CLIN" in name and bool(get_close_matches(name, known, 1, 0.9)))


def _plain(name: str) -> str:
    """In capitals, with one underscore for whatever else is not a letter or digit, invisible or not."""
    return re.sub("[^A-Z0-9]+", "_", name.upper()).strip("_")


def _meant(name: str, known: Iterable[str]) -> str:
    return "".join(f": did you mean {match}?" for match in get_close_matches(_plain(name), known, 1, 0.8))


def _value(name: str, text: str, kind: Any) -> Any:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of the environment that Python could only escape
        raise Misconfigured(f"{name} cannot be used: write it in UTF-8") from None
    if get_origin(kind) is dict:
        return _options(name, text, kind)
    try:
        return msgspec.convert(text, kind, strict=False, dec_hook=_read)
    except (msgspec.ValidationError, Refused, RuntimeError) as error:  # RuntimeError: nobody's home
        if kind is Token:  # a secret, or what was meant to be one, is not repeated
            raise Misconfigured(
                f"{name} cannot be used: give at least 16 characters of visible ASCII, or none to do without"
            ) from None
        raise Misconfigured(f"{name}={text} cannot be used: {_choices(kind) or error}") from error


def _options(name: str, text: str, kind: Any) -> Any:
    with suppress(msgspec.DecodeError):
        options = msgspec.json.decode(text, type=kind)
        if len(options) == len(json.loads(text, object_pairs_hook=list)):
            return options
    # Neither the text nor the decoder's words are repeated: options may hold secrets.
    raise Misconfigured(
        f'{name} cannot be used: write a JSON object of texts, like {{"security.protocol": "SSL"}}, '
        f"each name once"
    )


def _read(kind: type, text: str) -> Any:
    if kind is Money:
        price = Money(text)
        if price > MAX_PRICE:
            raise Refused(f"the largest hourly price is {MAX_PRICE}")
        return price
    if kind is Path:
        return Path(text).expanduser()
    raise NotImplementedError(kind)


def _choices(kind: Any) -> str | None:
    return f"choose one of {', '.join(get_args(kind))}" if get_origin(kind) is Literal else None
