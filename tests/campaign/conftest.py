"""Servers that the campaigns of a run of the tests use one after the other, and may kill."""

from collections.abc import Iterator

import pytest

from campaign.real import RealServers, real_servers


@pytest.fixture(scope="session")
def below() -> Iterator[RealServers]:
    with real_servers() as found:
        yield found
