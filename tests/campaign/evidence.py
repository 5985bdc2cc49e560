"""What the services themselves wrote down: when each appointment was finished and charged, and who was handed
which event.

Logs may lose lines while the campaign breaks them. So what is read from a log can only accuse (a charge that
was new twice, a traceback) or be shown (times). Whether a charge is there rests on what the services show,
and whether an event was handed over twice on notes of the campaign's own.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from support.processes import Service

from campaign.below import A_FAULT
from campaign.failpoints import THREAD_ENDS, Control

LONGEST = 3_000
"""Characters of a traceback."""
DIFFERS = "differs from its charge"
CANCELLED = "it was cancelled before its service"
"""What a service says of its loop then: nothing tells who cancelled it."""
THREAD_ENDED = "RuntimeError: the thread "
"""What it says of a thread that has ended, whoever hears of it first: the thread's own words stand beside."""
OF_A_CHARGE = ("charged", "already charged", DIFFERS)


@dataclass
class Evidence:
    """Times are seconds since 1970, by the machine's clock."""

    finished_at: dict[str, float] = field(default_factory=dict)
    charged_at: dict[str, float] = field(default_factory=dict)
    times_new: Counter[str] = field(default_factory=Counter)
    """How often each appointment's charge was recorded as new."""
    counts: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    """Log lines that were lost, as far as the services said so."""
    differing: set[str] = field(default_factory=set)
    """The appointments of which something else was heard than what was charged."""
    tracebacks: list[str] = field(default_factory=list)
    held_twice: set[str] = field(default_factory=set)
    """Events that were handed to a relay while another still held them."""
    late: set[str] = field(default_factory=set)
    """Events that a relay published when its lease was over."""

    def waits(self, answered_at: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        """For each charged appointment, when it was finished and how many seconds later it was charged."""
        finished = dict(answered_at) | self.finished_at
        both = finished.keys() & self.charged_at.keys()
        return {id_: (finished[id_], max(0.0, self.charged_at[id_] - finished[id_])) for id_ in both}


def gathered(services: Iterable[Service], control: Control, *, leases_outlive_processes: bool) -> Evidence:
    """All of it, once the services have ended."""
    evidence = Evidence()
    for service in services:
        text = service.complained
        for line in text.splitlines():
            _read(evidence, line)
        evidence.tracebacks += [
            text[found.start() :][:LONGEST]
            for found in re.finditer(r"^(.*\+ Exception Group )?Traceback", text, re.MULTILINE)
        ]
    for words, times in ((CANCELLED, control.dooms("cancel")), (THREAD_ENDED, control.dooms(*THREAD_ENDS))):
        evidence.tracebacks = _unasked(evidence.tracebacks, words, times)
    held = (control.folder / "held").iterdir()
    notes = [note for path in held for line in path.read_bytes().splitlines() for note in _note(line)]
    evidence.held_twice = _held_twice(sorted(notes, key=lambda note: note["at"]), leases_outlive_processes)
    evidence.late = {event for note in notes for event in note.get("late", ())}
    return evidence


def _note(line: bytes) -> list[dict[str, Any]]:
    try:
        return [msgspec.json.decode(line)]
    except msgspec.DecodeError:
        return []  # cut off by a kill


def _read(evidence: Evidence, line: str) -> None:
    try:
        entry = msgspec.json.decode(line)
        event = entry["event"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return  # a traceback, or a line that was cut off by a kill
    evidence.counts[event] += 1
    evidence.dropped += entry["count"] if event == "log lines dropped" else 0
    if "exception" in entry:
        evidence.tracebacks.append(f"{event}: {entry['exception'][-LONGEST:]}")
    if event == "finished":
        evidence.finished_at.setdefault(entry["appointment_id"], _seconds(entry))
    elif event in OF_A_CHARGE:
        at, id_ = _seconds(entry), entry["appointment_id"]
        if event == "charged":  # where that line was lost, the next may come long after the charge
            evidence.charged_at[id_] = min(at, evidence.charged_at.get(id_, at))
        evidence.times_new[id_] += event == "charged"
        evidence.differing |= {id_} if event == DIFFERS else set()


def _unasked(tracebacks: Iterable[str], words: str, times: int) -> list[str]:
    """Without those of the loops and threads that the campaign ended."""
    found = []
    for each in tracebacks:
        if words in each and times:
            times -= 1
        elif A_FAULT not in each:
            found.append(each)
    return found


def _seconds(entry: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(entry["timestamp"]).timestamp()


def _held_twice(notes: Iterable[Mapping[str, Any]], leases_outlive_processes: bool) -> set[str]:
    found, holders = set(), defaultdict[str, tuple[int, float]](lambda: (0, 0.0))
    for note in notes:
        timely = {event: until for event, until in note.get("held", {}).items() if until > note["at"]}
        for event, until in timely.items():  # what came too late, the relay itself lets go
            pid, held_until = holders[event]
            if note["at"] < held_until and (leases_outlive_processes or pid == note["pid"]):
                found.add(event)
            holders[event] = note["pid"], until
    return found
