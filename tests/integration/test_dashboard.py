"""A real Prometheus answers every query of the dashboard, from what real services showed."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from alerts.recording import INTERVAL, Recording, read
from support.ports import free_ports
from support.servers import until

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "clinic.json"
FAULTS = ("broker-away", "charge-lost")
"""Of the first recording every series is kept, of the second those of the standing audit."""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, float, float]]:
    """Its address, and the first and last second of what was recorded."""
    if not shutil.which("prometheus"):
        reason = "needs prometheus (Debian: apt-get install prometheus)"
        pytest.fail(reason, pytrace=False) if os.environ.get("CI") == "true" else pytest.skip(reason)
    folder = tmp_path_factory.mktemp("prometheus")
    first, second = map(read, FAULTS)
    recording = Recording(first.began, first.ended, second.series | first.series)
    began = time.time() // INTERVAL * INTERVAL - recording.seconds
    lines = [
        f"{series} {value} {began + number * INTERVAL}"
        for series, values in recording.series.items()
        for number, value in enumerate(values)
        if value is not None
    ]
    (folder / "recorded").write_text("\n".join([*lines, "# EOF", ""]))
    (folder / "prometheus.yaml").write_text("{}")
    made = ("promtool", "tsdb", "create-blocks-from", "openmetrics", folder / "recorded", folder / "data")
    subprocess.run(made, check=True, capture_output=True)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = (
        "prometheus",
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    )
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as running:
        try:
            until(lambda: answers(address), "Prometheus")
            yield f"http://{address}", began, began + recording.seconds
        finally:
            running.kill()


def answers(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/-/ready", trust_env=False).is_success
    except httpx.TransportError:
        return False


def test_every_query_of_the_dashboard_has_an_answer(prometheus: tuple[str, float, float]) -> None:
    url, began, ended = prometheus
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    assert len(queries) > 20
    without = []
    with httpx.Client(base_url=url, trust_env=False) as http:
        for query in queries:
            asked = {
                "query": query.replace("$__rate_interval", "1m"),
                "start": str(began),
                "end": str(ended),
                "step": "15",
            }
            answer = http.get("/api/v1/query_range", params=asked)
            found = answer.json()
            assert found["status"] == "success", f"{query}: {answer.text}"
            values = [value for series in found["data"]["result"] for _, value in series["values"]]
            if all(value == "NaN" for value in values):
                without.append(query)
    assert without == []
