"""What is measured: how each system is started, and what it has stored."""

import os
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Protocol

import pymongo
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from msgspec import Struct

from benchmarks.servers import Servers

ROOT: Final = Path(__file__).parents[1]
PEERS_PYTHON: Final = Path(__file__).parent / "peers" / ".venv" / "bin" / "python"
DRAINED: Final = 20_000


class System(Struct, frozen=True, kw_only=True):
    """A pair of services. `{service}` in its command is what runs, `{port}` where."""

    name: str
    command: tuple[str, ...]
    source: Path = ROOT / "src"
    stack: str = "real"
    is_peer: bool = False
    extra: Mapping[str, str] = {}
    unpublished: tuple[str, Mapping[str, Any]] = ("appointments", {"outbox": {"$exists": True}})
    drained: int = DRAINED
    prefix: str = ""
    scenarios: frozenset[str] | None = None
    """None: all."""


CLINIC: Final = System(
    name="clinic",
    command=(sys.executable, "-m", "clinic", "run", "{service}"),
    unpublished=("appointments", {"outbox.0.id": {"$exists": True}}),
)
EMBEDDED: Final = System(name="clinic", command=CLINIC.command, stack="embedded")
NOTHING: Final = System(
    name="no-op",
    command=(sys.executable, "-m", "benchmarks.nothing"),
    stack="embedded",
    extra={"CLINIC_STORE": "memory", "CLINIC_TRANSPORT": "memory"},
    prefix="/nothing",
    scenarios=frozenset({"start", "finish"}),
)
BARE: Final = System(
    name="bare drivers",
    command=(sys.executable, "-m", "benchmarks.bare", "{port}"),
    is_peer=True,
    scenarios=frozenset({"drain"}),
)
A: Final = System(
    name="A",
    command=(str(PEERS_PYTHON), "-m", "benchmarks.peers.transaction", "{service}", "{port}"),
    is_peer=True,
    unpublished=("outbox", {}),
    drained=2_000,  # at some 300 a second, 20,000 would take a minute
)
B: Final = System(
    name="B",
    command=(str(PEERS_PYTHON), "-m", "benchmarks.peers.document", "{service}", "{port}"),
    is_peer=True,
)
B_WAKE: Final = System(name="B+wake", command=B.command, is_peer=True, extra={"PEER_WAKE": "yes"})


class Place(Struct, frozen=True, kw_only=True):
    """Where one session of a system runs and keeps its data."""

    run: str
    folder: Path
    ports: Mapping[str, int]
    servers: Servers | None

    def environment(self, system: System) -> dict[str, str]:
        """Nothing of the caller's own settings gets in."""
        common = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{system.source}:{ROOT}:{ROOT / 'tests'}"}
        mongo_url, kafka = (self.servers.mongo_url, self.servers.kafka) if self.servers else ("", "")
        if system.is_peer:
            settings = {
                "PEER_MONGO": mongo_url,
                "PEER_KAFKA": kafka,
                "PEER_DATABASE": self.run,
                "PEER_TOPIC": self.run,
                "PEER_GROUP": self.run,
            }
        else:
            settings = self.clinic(system)
        return common | settings | dict(system.extra)

    def clinic(self, system: System) -> dict[str, str]:
        """The settings of clinic."""
        settings = {
            "CLINIC_DATA_DIR": str(self.folder),
            "CLINIC_APPOINTMENT_PORT": str(self.ports["appointment"]),
            "CLINIC_FINANCIAL_PORT": str(self.ports["financial"]),
            "CLINIC_LOG_LEVEL": "warning",
        }
        if system.stack == "real" and self.servers:
            settings |= {
                "CLINIC_STORE": "mongo",
                "CLINIC_TRANSPORT": "kafka",
                "CLINIC_MONGO_URL": self.servers.mongo_url,
                "CLINIC_MONGO_DATABASE": self.run,
                "CLINIC_KAFKA_BOOTSTRAP_SERVERS": self.servers.kafka,
                "CLINIC_KAFKA_TOPIC": self.run,
                "CLINIC_CONSUMER_GROUP": self.run,
            }
        return settings

    @property
    def databases(self) -> Sequence[str]:
        return [self.run, f"{self.run}_appointment", f"{self.run}_financial"]


class Stored(Protocol):
    """What a session has stored, counted from outside."""

    def open_ids(self) -> list[str]:
        """The appointments that are not finished."""

    def finished(self) -> int:
        """How many are."""

    def unpublished(self) -> int:
        """Events in the outbox."""

    def charges(self) -> int:
        """Charges that are kept."""

    def close(self) -> None: ...


class InMongo(Stored):
    """By a client of its own."""

    def __init__(self, system: System, place: Place) -> None:
        assert place.servers
        self._client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(place.servers.mongo_url)
        options = CodecOptions[dict[str, Any]](uuid_representation=UuidRepresentation.STANDARD)
        names = (place.run, place.run) if system.is_peer else place.databases[1:]
        self._appointment, self.financial = (
            self._client.get_database(name, codec_options=options) for name in names
        )
        self._unpublished = system.unpublished

    def open_ids(self) -> list[str]:
        found = self._appointment["appointments"].find({"end": None}, {"_id": True})
        return [str(document["_id"]) for document in found]

    def finished(self) -> int:
        return self._appointment["appointments"].count_documents({"end": {"$ne": None}})

    def unpublished(self) -> int:
        collection, waiting = self._unpublished
        return self._appointment[collection].count_documents(waiting)

    def charges(self) -> int:
        return self.financial["charges"].estimated_document_count()

    def close(self) -> None:
        self._client.close()


class InSqlite(Stored):
    """From the files of the embedded default, read only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open_ids(self) -> list[str]:
        return [
            row[0].hex()
            for row in self._ask("appointment", 'SELECT id FROM appointments WHERE "end" IS NULL')
        ]

    def finished(self) -> int:
        return int(self._ask("appointment", 'SELECT count(*) FROM appointments WHERE "end" NOT NULL')[0][0])

    def unpublished(self) -> int:
        return int(self._ask("appointment", "SELECT count(*) FROM outbox")[0][0])

    def charges(self) -> int:
        return int(self._ask("financial", "SELECT count(*) FROM charges")[0][0])

    def _ask(self, file: str, query: str) -> list[Any]:
        with closing(
            sqlite3.connect(f"file:{self._folder / file}.db?mode=ro", uri=True, timeout=5)
        ) as connection:
            return connection.execute(query).fetchall()

    def close(self) -> None:
        return


def stored(system: System, place: Place) -> Stored:
    """What this session has stored."""
    return InMongo(system, place) if system.stack == "real" else InSqlite(place.folder)
