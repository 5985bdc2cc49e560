"""The kit of clinic, and a server for the tests of a run."""

from collections.abc import Iterator

import pytest
from nats_server import NatsServer

pytest_plugins = ["clinic.testing"]


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server.variables()["CLINIC_NATS_URL"]
