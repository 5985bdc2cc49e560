"""What the commands of an operator share: the contexts' data, open beside the services that serve them."""

from argparse import ArgumentTypeError
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from clinic.domain.errors import Misconfigured
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer

LONGEST = 10**9


@asynccontextmanager
async def visiting(*containers: AppointmentContainer | FinancialContainer) -> AsyncIterator[None]:
    """Inside, these contexts' data can be read and written. Raises `Misconfigured` or `Unavailable` where they cannot."""
    async with AsyncExitStack() as stack:
        for container in containers:
            kept = container.kept()
            if kept is None:
                raise Misconfigured("CLINIC_STORE=memory keeps everything inside its own process: no command can look at it")
            stack.push_async_callback(kept.close)
            await kept.visit()
        yield


def seconds(text: str) -> float:
    """A number of seconds as it is written on the command line; argparse says what is wrong with another."""
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= LONGEST:
        raise ArgumentTypeError(f"{text!r} is no number of seconds: write one from 0 to {LONGEST}")
    return number
