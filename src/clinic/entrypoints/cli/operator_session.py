"""What the commands of an operator share: the contexts' data, open beside the services that serve them."""

from argparse import ArgumentTypeError
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from clinic.domain.errors import Misconfigured
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer

MAX_SECONDS = 10**9


@asynccontextmanager
async def attached(*containers: AppointmentContainer | FinancialContainer) -> AsyncIterator[None]:
    """Inside, these contexts' data can be read and written. Raises `Misconfigured` or `Unavailable` where
    they cannot.
    """
    async with AsyncExitStack() as stack:
        for container in containers:
            storage = container.storage()
            if storage is None:
                raise Misconfigured(
                    "CLINIC_STORE=memory keeps everything inside its own process: no command can look at it"
                )
            stack.push_async_callback(storage.close)
            await storage.attach()
        yield


def seconds(text: str) -> float:
    """A number of seconds as it is written on the command line; argparse says what is wrong with another."""
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= MAX_SECONDS:
        raise ArgumentTypeError(f"{text!r} is no number of seconds: write one from 0 to {MAX_SECONDS}")
    return number
