"""The memory transport keeps every promise, for as long as its process lives."""

from clinic.entrypoints.technologies.memory import TRANSPORT
from clinic.testing.transports import TransportContract


class TestMemoryTransport(TransportContract):
    transport = TRANSPORT
    always_answers = True
