"""What processes and the machine spent, read from Linux's /proc. See proc(5)."""

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

PROC: Final = Path("/proc")
TICKS: Final = os.sysconf("SC_CLK_TCK")
BUSY: Final = (0, 1, 2, 5, 6, 7)
"""Columns of the machine's line: user, nice, system, irq, softirq and steal."""


class Stat(Struct, frozen=True):
    """A process: its parent, and the CPU seconds of its threads."""

    parent: int
    cpu: float


class Snapshot(Struct, frozen=True):
    """CPU seconds so far: by name, of the benchmark itself, and of the machine."""

    at: float
    cpu: Mapping[str, float]
    own: float
    machine: float


class Spent(Struct, frozen=True):
    """What was spent between two snapshots."""

    seconds: float
    cpu: Mapping[str, float]
    others: float
    """Cores that processes took which belong neither to the system nor to the benchmark."""


def parse_stat(text: str) -> Stat:
    """/proc/PID/stat. The name in parentheses may hold anything."""
    fields = text.rpartition(")")[2].split()
    return Stat(int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS)


def parse_machine(text: str) -> float:
    """The first line of /proc/stat: busy seconds of all cores."""
    fields = [int(field) for field in text.splitlines()[0].split()[1:]]
    return sum(fields[index] for index in BUSY) / TICKS


def parse_memory(text: str) -> int:
    """/proc/PID/status: resident bytes; 0 for a process that has ended."""
    for line in text.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def descendants(root: int, stats: Mapping[int, Stat]) -> set[int]:
    """The process and all below it."""
    found, size = {root} & stats.keys(), -1
    while len(found) != size:
        size = len(found)
        found |= {pid for pid, stat in stats.items() if stat.parent in found}
    return found


def memory(pid: int) -> int:
    """Resident bytes."""
    return parse_memory((PROC / str(pid) / "status").read_text())


def snapshot(processes: Mapping[str, int]) -> Snapshot:
    """Now, of these processes and all below each."""
    stats = dict(_stats())
    own = os.times()
    return Snapshot(
        at=time.perf_counter(),
        cpu={
            name: sum(stats[pid].cpu for pid in descendants(root, stats)) for name, root in processes.items()
        },
        own=own.user + own.system + own.children_user + own.children_system,
        machine=parse_machine((PROC / "stat").read_text()),
    )


def spent(before: Snapshot, after: Snapshot) -> Spent:
    """From one to the other; a process that was not there before has begun in between."""
    seconds = after.at - before.at
    cpu = {name: after.cpu[name] - before.cpu.get(name, 0.0) for name in after.cpu}
    others = after.machine - before.machine - (after.own - before.own) - sum(cpu.values())
    return Spent(seconds, cpu, max(0.0, others) / seconds)


def _stats() -> Iterable[tuple[int, Stat]]:
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has just ended
                yield int(entry.name), parse_stat((entry / "stat").read_text())
