"""Real processes for a test: always ended after it, and shown with it when it fails."""

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path

import httpx
import pytest
from support import servers
from support.processes import PROGRAM, Pair, Process, Service

RUNNING = pytest.StashKey[list[Process]]()
FAILED = pytest.StashKey[bool]()
SHOWN = 8_000
"""Characters of a log, from its end."""

StartProcess = Callable[..., Process]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
        for process in item.stash.get(RUNNING, []):
            logs = {"output": process.printed, "log": process.complained}
            report.sections += [
                (f"{kind} of {process.name}", text[-SHOWN:]) for kind, text in logs.items() if text
            ]
    return report


@pytest.fixture
def processes(request: pytest.FixtureRequest) -> Iterator[list[Process]]:
    """Whatever is put here is ended after the test."""
    running: list[Process] = []
    request.node.stash[RUNNING] = running
    yield running
    for process in running:
        process.clean_up()


@pytest.fixture
def logged(request: pytest.FixtureRequest) -> list[Process]:
    """Whatever is put here is shown with a test that fails; others end it."""
    running: list[Process] = request.node.stash.setdefault(RUNNING, [])
    return running


@pytest.fixture
def has_failed(request: pytest.FixtureRequest) -> Callable[[], bool]:
    """Whether the test has, for what is done after it."""
    return lambda: request.node.stash.get(FAILED, False)


@pytest.fixture
def pair(processes: list[Process], tmp_path: Path) -> Pair:
    """Both services on a fresh folder; a test starts them."""
    made = Pair(tmp_path, {})
    processes += made.services
    return made


@pytest.fixture
def command(processes: list[Process], pair: Pair) -> Callable[..., Service]:
    """The `clinic` command with the pair's settings; a test starts it. Its url is the appointment
    service's.
    """

    def make(*arguments: str, name: str = "clinic", **settings: str) -> Service:
        environment = pair.environment | settings
        made = Service(name, (*PROGRAM, *arguments), environment, pair.folder, pair.appointment.url)
        processes.append(made)
        return made

    return make


@pytest.fixture(scope="session")
def mongo_standalone() -> Iterator[str]:
    with servers.mongo(replica_set=False) as url:
        yield url


@pytest.fixture(scope="session")
def mongo_replica_set() -> Iterator[str]:
    with servers.mongo(replica_set=True) as url:
        yield url


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    # One coordinator for all groups, and it is there: a new cluster says "not coordinator" for a while.
    with servers.kafka(KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS="1") as address:
        servers.until(lambda: servers.has_coordinator(address), "the coordinator of Kafka's groups")
        yield address


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """A client that connects anew where it must, and waits longer than the longest wait of a service."""
    async with httpx.AsyncClient(timeout=40, trust_env=False) as client:
        yield client
