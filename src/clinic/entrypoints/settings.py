"""Everything that can be set, read once. `.env.example` lists what the built-in technologies want, too."""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import FieldInfo, asdict, fields

from clinic.domain.errors import Misconfigured, Refused
from clinic.domain.money import Money
from clinic.entrypoints import discovery
from clinic.entrypoints.environment import PREFIX
from clinic.entrypoints.technologies.factories import Secret

OF_TESTS = PREFIX + "TEST_"

MAX_PRICE = Money("1000000.00")
"""Per hour: beyond it the total of a long appointment would be more than can be charged."""

S = TypeVar("S", bound=Struct)

Port = Annotated[int, Meta(ge=1, le=65535)]
Token = Annotated[str, Meta(min_length=16, pattern=r"^[!-~]*$"), Secret]
"""What can be sent in a header: a line break or an umlaut in it would never match."""
Every = Annotated[str, Meta(pattern=r"^(off|[1-9][0-9]{0,3}[smh])$")]
"""How often the standing audit of `clinic run` looks, like 5m; off: it does not run."""
Url = Annotated[str, Meta(pattern=r"^https?://[^\s/?#]+/?$")]
"""Where the console asks a service; empty: where its host and port put it."""
Group = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]+$", max_length=200)]
"""It names files and Kafka's consumer group."""


class CoreSettings(Struct, frozen=True, kw_only=True):
    """Each field is read from the variable of its name in capitals, behind CLINIC_."""

    store: str = "sqlite"
    transport: str = "sqlite"
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
    console: Literal["on", "off"] = "on"
    console_host: str = "127.0.0.1"
    console_port: Port = 8080
    console_secret: Token = ""
    appointment_url: Url = ""
    financial_url: Url = ""
    audit_url: Url = ""
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$")] = "USD"
    time_zone: str = "UTC"
    keep_alive: Annotated[int, Meta(ge=1, le=3600)] = 75
    operator_token: Token = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"


class Settings(CoreSettings, frozen=True, kw_only=True):
    """The core's settings, and those of the technologies that are chosen; None for their defaults."""

    store_settings: Struct | None = None
    transport_settings: Struct | None = None


CORE: Final = fields(CoreSettings)
RESERVED: Final = (*CoreSettings.__struct_fields__, "test")
"""No technology's variables begin like one of these."""


def url(host: str, port: int) -> str:
    """The URL of a service on this address; an IPv6 address goes in brackets (RFC 3986, 3.2.2)."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def load(environment: Mapping[str, str]) -> Settings:
    """The settings that these variables make. Of the technologies, only the chosen ones are imported.

    An empty variable counts as unset, and space around a value does not count: a secret read from a file
    often ends with a line break. Raises `Misconfigured`, naming the variable.
    """
    discovery.check(RESERVED)
    core = _read(CoreSettings, PREFIX, environment)
    store, transport = discovery.store(core.store), discovery.transport(core.transport)
    return Settings(
        **asdict(core),
        store_settings=_read(store.settings, discovery.prefix(core.store), environment),
        transport_settings=_read(transport.settings, discovery.prefix(core.transport), environment),
    )


def _read(kind: type[S], prefix: str, environment: Mapping[str, str]) -> S:
    variables = {prefix + field.name.upper(): field for field in fields(kind)}
    given = {name: text for name in variables if (text := environment.get(name, "").strip())}
    for name, field in variables.items():
        if field.required and name not in given:
            raise Misconfigured(f"{name} is not set, and has no default")
    try:
        return kind(
            **{variables[name].name: _value(name, text, variables[name].type) for name, text in given.items()}
        )
    except (TypeError, ValueError) as error:  # of a __post_init__ that looks at several
        raise Misconfigured(f"{prefix}… cannot be used: {error}") from error


def store_settings(settings: Settings) -> Struct:
    """What the chosen store reads."""
    return settings.store_settings or discovery.store(settings.store).settings()


def transport_settings(settings: Settings) -> Struct:
    """What the chosen transport reads."""
    return settings.transport_settings or discovery.transport(settings.transport).settings()


def variables(settings: Settings) -> dict[str, tuple[FieldInfo, Any]]:
    """Each variable that is read, its field, and the value that it has."""
    chosen: list[tuple[str, Struct]] = [
        (discovery.prefix(settings.store), store_settings(settings)),
        (discovery.prefix(settings.transport), transport_settings(settings)),
    ]
    return {PREFIX + field.name.upper(): (field, getattr(settings, field.name)) for field in CORE} | {
        prefix + field.name.upper(): (field, getattr(its, field.name))
        for prefix, its in chosen
        for field in fields(its)
    }


def is_secret(kind: Any) -> bool:
    """Whether a value of this type may be shown to nobody."""
    return any(Secret == meta for meta in getattr(kind, "__metadata__", ()))


def unknown(environment: Mapping[str, str], settings: Settings) -> list[str]:
    """A sentence about each variable that looks like a setting and is not: misspelt, most likely.

    What a technology reads that is installed and not chosen is not known, and nothing is said of it.
    """
    known = variables(settings).keys()
    others = tuple({
        discovery.prefix(point.name)
        for kind in discovery.GROUPS
        for point in discovery.installed(kind)
        if point.name not in (settings.store, settings.transport)
    })  # fmt: skip
    return [
        f"{name} is not known here and has no effect{_meant(name, known)}"
        for name in sorted(environment.keys() - known)
        if not name.startswith((OF_TESTS, *others)) and _resembles(_plain(name), known)
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
    plain = get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
    if get_origin(plain) is dict:
        return _options(name, text, plain)
    try:
        return msgspec.convert(text, kind, strict=False, dec_hook=_decode)
    except (msgspec.ValidationError, Refused, RuntimeError) as error:  # RuntimeError: nobody's home
        if kind == Token:
            raise Misconfigured(
                f"{name} cannot be used: give at least 16 characters of visible ASCII, or none to do without"
            ) from None
        if is_secret(kind):  # or what was meant to be one: neither the text nor the error is repeated
            raise Misconfigured(f"{name} cannot be used: its value is not what is wanted there") from None
        raise Misconfigured(f"{name}={text} cannot be used: {_choices(plain) or error}") from error


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


def _decode(kind: type, text: str) -> Any:
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
