"""AsyncAPI's own parser takes the documents of both services without a remark."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.settings import Settings
from clinic.entrypoints.technologies.kafka import KafkaSettings
from clinic.entrypoints.web import events

ROOT = Path(__file__).parents[2]
PARSER = ROOT / ".venv" / "asyncapi"
VALIDATE = Path(__file__).with_name("asyncapi") / "validate.mjs"

Json = dict[str, Any]


def node() -> str:
    """The command, where the parser is there, too. Where either is missing: skipped, and failed in CI."""
    found = shutil.which("node")
    if found and (PARSER / "ready").exists():
        return found
    reason = "needs Node.js and npm, and `make .venv/asyncapi/ready`: AsyncAPI's parser did not look"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def documents() -> dict[str, Json]:
    """Both over Kafka, one over each transport that has less to say: half a second of the parser's each."""
    brokers = KafkaSettings(bootstrap_servers="a:9092,b:9092")
    kafka = Settings(transport="kafka", transport_settings=brokers)
    sqlite, memory = [Settings(transport=name) for name in ("sqlite", "memory")]
    return {
        "sent over Kafka": events.sent(AppointmentContainer(settings=kafka).channel()).document,
        "received over Kafka": events.received(FinancialContainer(settings=kafka).channel()).document,
        "sent over SQLite": events.sent(AppointmentContainer(settings=sqlite).channel()).document,
        "received in memory": events.received(FinancialContainer(settings=memory).channel()).document,
    }


def parse(folder: Path, documents: Mapping[str, Json]) -> dict[str, Json]:
    """What the parser says of each document."""
    files = {name: folder / f"{name}.json" for name in documents}
    for name, file in files.items():
        file.write_text(json.dumps(documents[name]))
    said = subprocess.run(
        [node(), VALIDATE, PARSER, *files.values()], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    return {name: found[str(file)] for name, file in files.items()}


def test_the_official_parser_takes_every_document_and_sees_what_is_wrong(tmp_path: Path) -> None:
    good = documents()
    planted = json.loads(json.dumps(good["sent over SQLite"]))
    planted["operations"]["sendFinished"]["action"] = "sends"
    found = parse(tmp_path, good | {"planted": planted})
    assert {name: found[name]["wrong"] for name in good} == {name: [] for name in good}
    assert {name: found[name]["parsed"] for name in good} == dict.fromkeys(good, "3.1.0")
    assert "action" in str(found["planted"]["wrong"])
