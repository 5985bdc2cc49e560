"""What the commands of an operator share: the contexts' data, open beside the services that serve them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from clinic.domain.errors import Misconfigured
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer


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
