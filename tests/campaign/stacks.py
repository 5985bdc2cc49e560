"""What a campaign runs on: the services with the campaign's wrappers, and what is below them."""

import asyncio
import os
from abc import abstractmethod
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import httpx
from support.deployments import readiness
from support.ports import free_ports
from support.processes import PROGRAM, Service

from campaign.defects import DEFECTS
from campaign.failpoints import Control
from campaign.messages import Letter
from campaign.nemesis import Action
from campaign.plan import Options
from campaign.standby import Standby
from campaign.supervisor import Supervisor
from clinic.adapters.kafka.publisher import MIN_LEASE

PROBLEMS = "with problems"
TOO_MANY = "too many to look for finishes among them"
"""How readiness says that there are more dead letters than it looks through."""
AUDITED_TIMEOUT = 60.0
FIRST = {"CLINIC_HOURLY_PRICE": "133.33", "CLINIC_PRICING": "pro-rata"}
"""An odd price, by the second: amounts that are rounded."""
TESTS = Path(__file__).parents[1]


class Stack(Protocol):
    """`services` are the instances of each context."""

    services: dict[str, list[Service]]
    control: Control

    @abstractmethod
    def actions(self, supervisors: Mapping[str, list[Supervisor]]) -> Mapping[str, Action]:
        """The faults that only this stack has, by the first word of their names."""

    @abstractmethod
    def unacknowledged(self) -> int:
        """Events that the group has not yet done with."""

    @abstractmethod
    def dead_letters(self) -> list[Letter]:
        """All that are kept, from below the services."""

    async def audited(self) -> list[str]:
        """What `clinic audit` has to say beside the services; nothing where all is well."""
        both = [instances[0] for instances in self.services.values()]
        environment = dict(item for service in both for item in service.environment.items())
        command = *PROGRAM, "audit", "--json", "--grace", "0"
        auditing = await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE, stderr=STDOUT)
        said, _ = await asyncio.wait_for(auditing.communicate(), AUDITED_TIMEOUT)
        return (
            [f"exit code {auditing.returncode}", *said.decode().splitlines()] if auditing.returncode else []
        )

    async def left(self, http: httpx.AsyncClient) -> dict[str, Any]:
        """What is still on its way. Empty when all is done."""
        found: dict[str, Any] = {}
        for service in self.services["appointment"]:
            health = await readiness(http, service)
            if (age := health.get("oldest_unpublished_seconds")) is not None:
                found["unpublished"] = f"{age:.1f} s"
        for service in (each for instances in self.services.values() for each in instances):
            health = await readiness(http, service)
            if problems := problems_in(health["checks"]):
                found[PROBLEMS] = f"{service.name} {problems}"
        if count := self.unacknowledged():
            found["unacknowledged"] = count
        return found


def problems_in(checks: Mapping[str, str]) -> dict[str, str]:
    """What readiness names, but for a service that has given up looking: nobody handles foreign messages."""
    return {
        name: answer for name, answer in checks.items() if answer != "ok" and not answer.startswith(TOO_MANY)
    }


def fixed(options: Options) -> Mapping[str, str]:
    """The settings that a planted defect needs, also after a restart."""
    defect = DEFECTS.get(options.defect)
    settings = dict(defect.settings) if defect else {}
    if options.stack == "real" and "CLINIC_LEASE" in settings:
        settings["CLINIC_LEASE"] = str(MIN_LEASE)  # Kafka's publisher refuses a shorter one
    return settings


def services(
    folder: Path, context: str, count: int, settings: dict[str, str], options: Options
) -> list[Service]:
    """Instances of a service, each in the campaign's hands."""
    made: list[Service] = []
    for number, port in enumerate(free_ports(count), 1):
        name = f"{context}-{number}"
        environment = {
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
            "CLINIC_LOG_FORMAT": "json",
            "CLINIC_LEASE": str(options.lease),
            f"CLINIC_{context.upper()}_PORT": str(port),
            **settings,
            **FIRST,
            **fixed(options),
        }
        launcher = (PROGRAM[0], "-m", "campaign.launcher", str(folder / "points"), name, options.defect)
        made.append(
            Standby(name, (*launcher, "run", context), environment, folder, f"http://127.0.0.1:{port}")
        )
    return made
