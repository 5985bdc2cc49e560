"""On what it was measured."""

import os
import platform
import sysconfig
from importlib.metadata import version
from pathlib import Path
from typing import Final

LIBRARIES: Final = ("litestar", "uvicorn", "pymongo", "confluent-kafka", "msgspec")


def machine() -> dict[str, str]:
    """What a reader needs to know to compare."""
    cpu = _line("/proc/cpuinfo", "model name")
    memory = int(_line("/proc/meminfo", "MemTotal").split()[0]) / 1024**2
    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return {
        "machine": f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GiB",
        "system": f"Linux {platform.release().partition('-')[0]}",
        "Python": f"{platform.python_version()}, built {'with' if optimised else 'without'} PGO",
        "libraries": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
    }


def load() -> str:
    """The load averages of the last one, five and fifteen minutes."""
    return " ".join(f"{average:.2f}" for average in os.getloadavg())


def _line(file: str, name: str) -> str:
    for line in Path(file).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "unknown"
