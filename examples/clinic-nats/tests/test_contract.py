"""The transport keeps every promise."""

from pathlib import Path
from typing import ClassVar

import nats
import pytest
from clinic_nats import TRANSPORT, NatsSettings

from clinic.testing.builders import a_message
from clinic.testing.subject import FEW
from clinic.testing.transports import TransportContract


class TestNats(TransportContract):
    transport = TRANSPORT
    largest = 800 * 1024
    unpublishable = a_message(data=bytes(1024 * 1024))
    histories = FEW
    url: ClassVar[str]

    @pytest.fixture(autouse=True)
    def server(self, url: str) -> None:
        type(self).url = url

    def settings(self, where: Path) -> NatsSettings:
        return NatsSettings(url=self.url, stream=where.name)

    def nowhere(self, where: Path) -> NatsSettings:
        return NatsSettings(url="nats://127.0.0.1:1", stream=where.name)

    async def remove(self, where: Path) -> None:
        client = await nats.connect(self.url)
        await client.jetstream().delete_stream(where.name)
        await client.close()
