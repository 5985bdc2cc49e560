"""A `nats-server` with JetStream; Debian's package has one."""

from collections.abc import Mapping, Sequence

from clinic.testing.servers import ServerProcess


class NatsServer(ServerProcess):
    program = "nats-server"

    def arguments(self) -> Sequence[str]:
        place = ("--addr", "127.0.0.1", "--port", str(self.port))
        return (*place, "--jetstream", "--store_dir", str(self.folder))

    def variables(self) -> Mapping[str, str]:
        return {"CLINIC_NATS_URL": f"nats://127.0.0.1:{self.port}"}


SERVER = NatsServer
