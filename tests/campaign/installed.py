"""The embedded stack with any store and transport that are installed, and a server of theirs that can die."""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from subprocess import run
from typing import Any
from urllib.request import ProxyHandler, build_opener

from support.processes import PROGRAM

from campaign.embedded import Embedded
from campaign.messages import Letter
from campaign.nemesis import Action, Hit
from campaign.plan import Fault, Options
from campaign.supervisor import Supervisor
from clinic.testing.servers import ServerProcess

LAG = re.compile(r"^clinic_consumer_lag_events ([0-9.]+)", re.MULTILINE)
LOOPBACK = build_opener(ProxyHandler({})).open


class Installed(Embedded):
    """One process of each service; what a SQLite file says of the embedded stack, the services are asked."""

    def __init__(self, folder: Path, options: Options, server: ServerProcess | None) -> None:
        self._server, self._folder = server, folder
        self._options = options
        chosen = {"CLINIC_STORE": options.store, "CLINIC_TRANSPORT": options.transport}
        super().__init__(folder, options, chosen | (dict(server.variables()) if server else {}))

    def unacknowledged(self) -> int:
        """As far as the transport says."""
        (financial,) = self.services["financial"]
        with LOOPBACK(f"{financial.url}/metrics", timeout=10) as answer:
            found = LAG.search(answer.read().decode())
        return int(float(found[1])) if found else 0

    def dead_letters(self) -> list[Letter]:
        if self._options.store == "sqlite":
            return super().dead_letters()
        return [self._letter(each["position"]) for each in self._said("list")]

    def _letter(self, position: str) -> Letter:
        (found,) = self._said("show", position)
        length = found["value"]["length"] if found["value"] else 0
        return Letter(found["message_id"], length, found["sha256"], found["reason"])

    def _said(self, *words: str) -> list[dict[str, Any]]:
        """By `clinic dead-letters`, about whichever store it is."""
        (financial,) = self.services["financial"]
        command = (*PROGRAM, "dead-letters", *words, "--json")
        said = run(command, env=financial.environment, cwd=self._folder, capture_output=True, check=True)
        return [json.loads(line) for line in said.stdout.splitlines()]

    def actions(self, supervisors: Mapping[str, list[Supervisor]]) -> Mapping[str, Action]:
        return dict(super().actions(supervisors)) | {"kill": self._kill}

    async def _kill(self, fault: Fault) -> Hit | None:
        if self._server is None:
            return None
        await asyncio.to_thread(self._server.kill)
        hit = Hit(fault.where)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(self._server.start)
        return hit


@contextmanager
def installed(folder: Path, options: Options) -> Iterator[Installed]:
    """The stack; where a file with a `SERVER` is named, with that server."""
    with ExitStack() as stack:
        server = None
        if options.server:
            server = stack.enter_context(server_in(Path(options.server))(folder / "server"))
        yield Installed(folder, options, server)


def server_in(file: Path) -> type[ServerProcess]:
    """The `SERVER` of a plug-in's tests."""
    spec = spec_from_file_location(file.stem, file)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    server: type[ServerProcess] = module.SERVER
    return server
