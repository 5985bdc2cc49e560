"""wrk as the closed-loop client: as many requests as a system answers over some connections."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from msgspec import Struct

CONNECTIONS: Final = 64

DONE: Final = """
done = function(summary, latency, requests)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.status + summary.errors.timeout
  local p50, p99 = latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
  io.write(string.format('\\n{"requests": %d, "seconds": %f, "failed": %d, "p50": %f, "p99": %f}\\n',
    summary.requests, summary.duration / 1e6, failed, p50, p99))
end
"""
START: Final = (
    """
wrk.method = "POST"
wrk.path = "{prefix}/"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"physician_id": "8c9b1b0e-5d3f-4c39-9a53-0b9d3b1f8f10", ' ..
  '"patient_id": "2f1c7f3a-6b0c-4a57-8f6e-7f9f1d2b3c4d"}'
"""
    + DONE
)
KEYED: Final = (
    START
    + """
local headers, at = wrk.headers, 0
request = function()
  at = at + 1
  headers["Idempotency-Key"] = '"{run}-' .. at .. '"'
  return wrk.format(nil, nil, headers)
end
"""
)
FINISH: Final = (
    """
local ids = {}
for id in io.lines("{ids}") do ids[#ids + 1] = id end
local at = 0
request = function()
  at = at + 1
  return wrk.format("POST", "{prefix}/" .. ids[(at - 1) % #ids + 1] .. "/")
end
"""
    + DONE
)


class Driven(Struct, frozen=True):
    """What came of it; times in milliseconds."""

    requests: int
    seconds: float
    failed: int
    p50: float
    p99: float


def start(port: int, seconds: float, folder: Path, prefix: str = "", *, keyed: bool = False) -> Driven:
    """Start appointments; `keyed`, each with a key of its own."""
    script = KEYED.replace("{run}", uuid4().hex) if keyed else START
    return _drive(script.replace("{prefix}", prefix), port, seconds, folder)


def finish(port: int, seconds: float, folder: Path, ids: Sequence[str], prefix: str = "") -> Driven:
    """Finish these, each once. Raises `RuntimeError` where they are too few."""
    path = folder / "ids"
    path.write_text("".join(f"{id_}\n" for id_ in ids))
    driven = _drive(FINISH.replace("{prefix}", prefix).replace("{ids}", str(path)), port, seconds, folder)
    if not prefix and driven.requests + CONNECTIONS > len(ids):
        raise RuntimeError(f"{len(ids)} appointments are too few for {driven.requests} finishes")
    return driven


def _drive(script: str, port: int, seconds: float, folder: Path) -> Driven:
    wrk = shutil.which("wrk") or sys.exit("wrk is not here (Debian: apt-get install wrk)")
    path = folder / "wrk.lua"
    path.write_text(script)
    command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "--timeout", "30s", "-s", str(path)]
    printed = subprocess.run(
        [*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True
    ).stdout
    return read(printed)


def read(printed: str) -> Driven:
    """The line of `done`. Raises `RuntimeError` where a request failed."""
    found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    driven = Driven(**found)
    if driven.failed:
        raise RuntimeError(f"{driven.failed} of {driven.requests} requests failed: {printed}")
    return driven
