"""A real Prometheus with what was recorded, and what it answers to the queries of the dashboard."""

import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from msgspec import Struct
from support.ports import free_ports
from support.servers import until

from alerts.recording import INTERVAL, MOMENTS, ROOT, Recording, read

DASHBOARD: Final = ROOT / "deploy" / "grafana" / "clinic.json"
FAULTS: Final = ("broker-away", "charge-lost")
"""Of the first recording every series is kept, of the second those of the standing audit."""
STEP: Final = 15
"""Seconds between two values of an answer, and between two of Prometheus's scrapes."""


class Line(Struct, frozen=True):
    """One line of a panel: its legend, and values by seconds since the recording began."""

    legend: str
    values: Sequence[tuple[float, float]]


def dashboard() -> list[dict[str, Any]]:
    """All of its panels, and the rows above them."""
    return list(json.loads(DASHBOARD.read_text())["panels"])


def both() -> Recording:
    """What is shown: one recording, and what the other one has besides."""
    first, second = map(read, FAULTS)
    return Recording(first.began, first.ended, second.series | first.series)


class Prometheus:
    """One that holds a recording, which ends now."""

    def __init__(self, address: str, began: float, seconds: int) -> None:
        self._url, self._began, self._seconds = f"http://{address}", began, seconds

    def lines(self, query: str, legend: str) -> list[Line]:
        """What a panel shows of this query. Raises `AssertionError` where Prometheus refuses it."""
        asked = {
            "query": query.replace("$__rate_interval", "1m"),
            "start": str(self._began),
            "end": str(self._began + self._seconds),
            "step": str(STEP),
        }
        answer = httpx.get(f"{self._url}/api/v1/query_range", params=asked, trust_env=False)
        found = answer.json()
        assert found["status"] == "success", f"{query}: {answer.text}"
        return [
            Line(
                _legend(legend, series["metric"]),
                [(at - self._began, float(value)) for at, value in series["values"]],
            )
            for series in found["data"]["result"]
        ]


def _legend(text: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), text)


@contextmanager
def prometheus(recording: Recording, folder: Path) -> Iterator[Prometheus]:
    """One of its own, on a port of its own."""
    began = time.time() // INTERVAL * INTERVAL - recording.seconds
    lines = [
        f"{series} {value + (began if series.startswith(MOMENTS) else 0)} {began + number * INTERVAL}"
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
        f"--query.lookback-delta={STEP}s",  # for the series' ends, which no file can say
    )
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as running:
        try:
            until(lambda: _answers(address), "Prometheus")
            yield Prometheus(address, began, recording.seconds)
        finally:
            running.kill()


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/-/ready", trust_env=False).is_success
    except httpx.TransportError:
        return False
