"""Both services and the console in front of them, as processes."""

from collections.abc import Mapping
from pathlib import Path

from support.ports import free_ports
from support.processes import PROGRAM, Pair, Service

TOKEN = "a-token-of-the-operators"  # noqa: S105 — of these tests


class WithConsole(Pair):
    """A pair, and pages in front of it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        (port,) = free_ports(1)
        super().__init__(
            folder,
            {
                "CLINIC_CONSOLE_PORT": str(port),
                "CLINIC_CONSOLE_SECRET": "a-secret-of-the-console",
                "CLINIC_OPERATOR_TOKEN": TOKEN,
                **environment,
            },
        )
        self.console = Service(
            "console", (*PROGRAM, "run", "console"), self.environment, folder, f"http://127.0.0.1:{port}"
        )

    @property
    def all(self) -> tuple[Service, ...]:
        return *self.services, self.console

    async def started(self) -> None:
        """Start all three, and return once they are ready."""
        self.console.start()
        await super().started()
        await self.console.ready()
