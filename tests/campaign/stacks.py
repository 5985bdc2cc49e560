"""What a campaign runs on: the services with the campaign's wrappers, and what is below them."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import httpx
from deployments import readiness
from processes import PROGRAM, Service, free_ports

from campaign.conductor import Deed
from campaign.defects import DEFECTS
from campaign.keeper import Keeper
from campaign.plan import Options
from campaign.points import Control
from campaign.standby import Standby

TROUBLE = "in trouble"
TESTS = Path(__file__).parents[1]


class Stack(Protocol):
    """`services` are the instances of each context."""

    services: dict[str, list[Service]]
    control: Control

    @abstractmethod
    def deeds(self, keepers: Mapping[str, list[Keeper]]) -> Mapping[str, Deed]:
        """The faults that only this stack has, by the first word of their names."""

    @abstractmethod
    def unacknowledged(self) -> int:
        """Events that the group has not yet done with."""

    @abstractmethod
    def dead_letters(self) -> str:
        """All that is kept of them, as text."""

    async def left(self, http: httpx.AsyncClient) -> dict[str, Any]:
        """What is still on its way. Empty when all is told and done."""
        found: dict[str, Any] = {}
        for service in self.services["appointment"]:
            health = await readiness(http, service)
            if (age := health.get("oldest_unpublished_seconds")) is not None:
                found["unpublished"] = f"{age:.1f} s"
        for service in (each for instances in self.services.values() for each in instances):
            health = await readiness(http, service)
            if health["status"] != "ready":
                found[TROUBLE] = f"{service.name} {health['checks']}"
        if count := self.unacknowledged():
            found["unacknowledged"] = count
        return found


def services(folder: Path, context: str, count: int, settings: dict[str, str], options: Options) -> list[Service]:
    """Instances of a service, each in the campaign's hands."""
    defect = DEFECTS.get(options.defect)
    made: list[Service] = []
    for number, port in enumerate(free_ports(count), 1):
        name = f"{context}-{number}"
        environment = {
            "PYTHONPATH": str(TESTS),
            "CLINIC_LOG_FORMAT": "json",
            "CLINIC_LEASE": str(options.lease),
            f"CLINIC_{context.upper()}_PORT": str(port),
            **settings,
            **(defect.settings if defect and context == "appointment" else {}),
        }
        launcher = (PROGRAM[0], "-m", "campaign.launcher", str(folder / "points"), name, options.defect)
        made.append(Standby(name, (*launcher, "run", context), environment, folder, f"http://127.0.0.1:{port}"))
    return made
