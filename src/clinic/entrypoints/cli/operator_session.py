"""What the commands of an operator share: the contexts' data, open beside the services that serve them."""

import json
import re
import sys
from argparse import ArgumentTypeError
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct

from clinic.domain.errors import Misconfigured
from clinic.entrypoints import discovery
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.formats import as_json
from clinic.entrypoints.settings import Settings

MAX_SECONDS = 10**9


@asynccontextmanager
async def attached(*containers: AppointmentContainer | FinancialContainer) -> AsyncIterator[None]:
    """Inside, these contexts' data can be read and written, and what is done is traced.

    Raises `Misconfigured` or `Unavailable` if they cannot.
    """
    async with AsyncExitStack() as stack:
        for container in containers:
            await stack.enter_async_context(container.tracing().lifespan())
        await stack.enter_async_context(attached_stores(*containers))
        yield


@asynccontextmanager
async def attached_stores(*containers: AppointmentContainer | FinancialContainer) -> AsyncIterator[None]:
    """The same, where whoever calls ends the tracing."""
    async with AsyncExitStack() as stack:
        for container in containers:
            refuse_in_process(container.settings())
            resource = container.store().resource
            stack.push_async_callback(resource.close)
            await resource.attach()
        yield


def refuse_in_process(settings: Settings) -> None:
    """Raises `Misconfigured` where only the services' own process can read the store."""
    if discovery.store(settings.store).in_process:
        raise Misconfigured(
            f"CLINIC_STORE={settings.store} keeps everything inside its own process: no command can read it"
        )


def interval(text: str) -> float:
    """A time as it is written on the command line, like 5m, in seconds."""
    if not (match := re.fullmatch(r"([1-9][0-9]{0,3})([smh])", text)):
        raise ArgumentTypeError(f"{text!r} is not a time: write one like 90s, 5m or 1h")
    return int(match[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]


def whole(text: str) -> int:
    """A whole number from 0 on."""
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ArgumentTypeError(f"{text!r} is not a whole number: write one from 0 to 999999999")
    return int(text)


def seconds(text: str) -> float:
    """A number of seconds as it is written on the command line; argparse says what is wrong with another."""
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= MAX_SECONDS:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds: write one from 0 to {MAX_SECONDS}")
    return number


def is_text(word: str) -> bool:
    """Whether it can be kept and printed: an argument with bytes that are not UTF-8 cannot."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def write_json(document: Struct) -> None:
    """One JSON object on a line of standard output; in ASCII where that does not take UTF-8."""
    line = as_json(document)
    if (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
        line = "".join(char if char.isascii() else json.dumps(char)[1:-1] for char in line)
    sys.stdout.write(line + "\n")
