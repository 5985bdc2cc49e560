"""What goes wrong, in which order: the same for the same seed. Each kind once, in a shuffled order, then
again and again.
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from itertools import count, product
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from campaign.broken_log import BROKEN
from campaign.failpoints import CALLS, FAILPOINTS, WATCHER_ENDS

Stack = Literal["embedded", "real"]
Kind = tuple[str, str]
"""What happens, and where."""

ANY_MOMENT: Final = "at any moment"
NO_FAULT: Final = "nothing"
FILLED: Final = {
    "appointment": ("add.before", "publish.before", "confirm.before"),
    "financial": ("charge.before", "dead-letter.before"),
}
"""Where a disk is full all of a sudden."""
BETWEEN_WRITES: Final = ("reserve.before", "reserve.after")
"""Inside a call of a port, where a store makes several writes of it; SQLite makes one."""
LOOP_ENDS: Final = {
    "appointment": (
        ("raise", "hand-over.after"),
        ("raise-base", "publish.before"),
        ("cancel", "confirm.before"),
    ),
    "financial": (
        ("raise", "acknowledge.before"),
        ("raise-base", "charge.after"),
        ("cancel", "delivery.before"),
        ("raise", "dead-letter.after"),
    ),
}
"""How and where the loop behind a service ends."""
THREADS_END: Final = {
    "appointment": (
        ("end-thread", "add.before"),
        ("end-reader", "add.before"),
        ("end-thread", "publish.before"),
    ),
    "financial": (
        ("end-thread", "charge.before"),
        ("end-reader", "charge.before"),
        ("end-thread", "delivery.before"),
        ("end-reader", "delivery.before"),
    ),
}
"""Which thread of a store or a transport ends, and where: a SQLite file has one that writes and one that
reads, an end of Kafka has one, MongoDB none.
"""
LOGS_BREAK: Final = {"appointment": "publish.before", "financial": "charge.before"}
"""The work during which a log goes wrong, and which goes on all the same."""
CUT: Final = ("add", "save", "confirm", "charge", "dead-letter")
"""Writes whose answers a proxy swallows."""
SERVERS: Final = ("mongo", "kafka")
ANSWERED_TWICE: Final = ("kill", "error")
"""What the first round begins with: the two that every boundary must stand."""

OUTLIVES_ITS_LEASE: Final = ("freeze", "hand-over.after")
"""A relay that wakes up too late."""
CLOCKS: Final = (-5400, -61, -1, 1, 59, 3595, 7200)

REST: Final = 80
"""Requests that are acknowledged between two faults of a lane, at most: a slow machine gets fewer faults a
minute, not a smaller share of answers.
"""
LEAST_SHARE: Final = 0.5
"""Of all requests, how many have to be acknowledged: else the run says nothing of a system at work."""
REST_OF_SERVERS: Final = 1500
"""The same once each server has been away in each way: while one is, little else can go wrong."""


class Options(Struct, frozen=True, kw_only=True):
    """A campaign goes on until all three amounts are reached, and every kind of fault was there once.

    It gives up after `bound` seconds of load, and does not count then; what follows is bounded, too.
    """

    seed: int = 1
    stack: Stack = "embedded"
    minutes: float = 1.0
    faults: int = 0
    bound: float = 0
    """Seconds; 0: three times the minutes, and four minutes."""
    appointments: int = 1000
    only: Sequence[str] = ("*",)
    """Patterns of faults, such as `kill *` or `* save.after`."""
    clients: int = 16
    share: float = 0.55
    """Of all requests. While fewer were acknowledged no fault is made: where a service takes long to
    start, each costs more requests.
    """
    pace: float = 0.15
    """Seconds that a client rests on average between two appointments."""
    lease: float = 1.0
    """Seconds."""
    over: float = 60.0
    """Seconds within which a service ends once a loop or a thread behind it has, frozen meanwhile or not."""
    patience: float = 8.0
    """Seconds in which, at the end, nothing more is charged before what is missing counts as lost."""
    defect: str = "none"
    store: str = "sqlite"
    transport: str = "sqlite"
    """Of the embedded stack: any that is installed."""
    server: str = ""
    """A file of a plug-in's tests: its `SERVER` is started, and killed."""


DEFAULTS: Final[Mapping[Stack, Options]] = {
    "embedded": Options(),
    "real": Options(stack="real", lease=2.0, pace=0.4, patience=25.0),
}


class Fault(Struct, frozen=True):
    """One thing that goes wrong, and for how long where it passes by itself."""

    number: int
    lane: str
    action: str
    where: str
    seconds: float
    rest: int
    """Requests that are acknowledged before it, since the fault before."""

    @property
    def name(self) -> str:
        return f"{self.action} {self.where}"


def kinds(options: Options) -> dict[str, list[Kind]]:
    """Every kind of fault that this campaign has, in the lane that brings it about. Lanes work side by
    side.
    """
    embedded = options.stack == "embedded"
    found: dict[str, list[Kind]] = {}
    for context, calls in CALLS.items():
        failpoints = [each for each in FAILPOINTS[context] if not (embedded and each in BETWEEN_WRITES)]
        found[context] = [
            *product(("kill", "error", "freeze", "delay"), failpoints),
            *product(("kill", "freeze"), [f"{context} {ANY_MOMENT}"]),
        ]
        found[context] += [*LOOP_ENDS[context], *product((*BROKEN, WATCHER_ENDS), [LOGS_BREAK[context]])]
        found[context] += [kind for kind in THREADS_END[context] if _has_thread(*kind, options)]
        if "publish" in calls:
            found[context].append(("refuse", "publish.before"))
        if embedded:
            found[context] += [("fill", point) for point in FILLED[context] if _is_sqlite(point, options)]
    found["messages"] = [("send", message) for message in ("garbage", "again", "otherwise")]
    found["system"] = [*product(("kill", "freeze"), ["both services"]), *product(["clock"], CALLS)]
    if not embedded:
        found["system"] += product(["cut"], CUT)
    elif options.transport == "sqlite":
        found["system"].append(("replace", "event log"))
    of_a_plugin = [("kill", "server")] if options.server else []
    found["servers"] = of_a_plugin if embedded else [*product(("kill", "pause", "restart"), SERVERS)]
    return {lane: [kind for kind in each if _is_wanted(kind, options.only)] for lane, each in found.items()}


def _is_sqlite(point: str, options: Options) -> bool:
    of_transport = point.startswith(("publish", "delivery"))
    return options.stack == "embedded" and (options.transport if of_transport else options.store) == "sqlite"


def _has_thread(action: str, point: str, options: Options) -> bool:
    of_kafka = (
        options.stack == "real" and action == "end-thread" and point.startswith(("publish", "delivery"))
    )
    return of_kafka or _is_sqlite(point, options)


def patterns(text: str) -> tuple[str, ...]:
    """Those of `Options.only`, from a line."""
    return () if text == NO_FAULT else tuple(pattern.strip() for pattern in text.split(","))


def unmatched(options: Options) -> list[str]:
    """The wanted patterns that no fault of this stack meets."""
    all_ = [kind for each in kinds(replace(options, only=("*",))).values() for kind in each]
    return [
        repr(pattern) for pattern in options.only if not any(_is_wanted(kind, [pattern]) for kind in all_)
    ]


def lane(name: str, wanted: Sequence[Kind], options: Options) -> Iterator[Fault]:
    """The faults of a lane, without end. Empty where none is wanted."""
    rng = random.Random(f"{options.seed} {name}")  # noqa: S311 — a seeded plan
    numbers = count(1)
    order = _first_round(wanted, rng)
    rest = REST
    clocks = defaultdict[str, float](float)
    while order:
        for action, where in order:
            seconds = clocks[where] = _seconds(action, where, options.lease, rng, clocks[where])
            yield Fault(next(numbers), name, action, where, round(seconds, 2), rng.randint(rest // 10, rest))
        order, rest = rng.sample(wanted, len(wanted)), REST_OF_SERVERS if name == "servers" else REST


def epilogue(name: str, wanted: Sequence[Kind], options: Options) -> Iterator[Fault]:
    """Every error once more, in quick succession: from then on nothing is started anew, so that whatever one
    leaves behind stays.
    """
    rng = random.Random(f"{options.seed} {name}, at the end")  # noqa: S311 — a seeded plan
    passing = [kind for kind in wanted if kind[0] in ("error", "refuse")]
    for number, (action, where) in enumerate(rng.sample(passing, len(passing)), 1):
        yield Fault(-number, name, action, where, 0, 2)


def _first_round(wanted: Sequence[Kind], rng: random.Random) -> list[Kind]:
    order = rng.sample(wanted, len(wanted))
    return sorted(order, key=lambda kind: kind[0] not in ANSWERED_TWICE)


def _is_wanted(kind: Kind, patterns: Sequence[str]) -> bool:
    return any(fnmatch(" ".join(kind), pattern) for pattern in patterns)


def _seconds(action: str, where: str, lease: float, rng: random.Random, before: float) -> float:
    if (action, where) == OUTLIVES_ITS_LEASE:
        return lease * 1.2
    if action in ("freeze", "pause"):
        return lease * rng.choice((0.1, 0.4, 1.2))  # shorter than a lease, and longer
    if action == "clock":
        return rng.choice([step for step in CLOCKS if step != before])
    return lease * rng.uniform(0.1, 0.9)
