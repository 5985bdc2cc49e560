"""When a charge can be seen: a change stream of MongoDB's, which shows only what the majority has."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, Final

from pymongo.synchronous.change_stream import ChangeStream
from pymongo.synchronous.database import Database

INSERTS: Final[Sequence[Mapping[str, Any]]] = [
    {"$match": {"operationType": "insert"}},
    {"$project": {"documentKey": True}},
]


@contextmanager
def charges_seen(financial: Database[dict[str, Any]]) -> Iterator[dict[str, float]]:
    """By appointment, the moment in which its charge was seen; it fills in a thread of its own."""
    seen: dict[str, float] = {}
    ending = Event()

    def watch(stream: ChangeStream[dict[str, Any]]) -> None:
        while not ending.is_set():
            if change := stream.try_next():
                seen[str(change["documentKey"]["_id"])] = time.perf_counter()

    with financial["charges"].watch(INSERTS, max_await_time_ms=200) as stream:
        stream.try_next()  # from here on nothing is missed
        watching = Thread(target=watch, args=(stream,), daemon=True)
        watching.start()
        try:
            yield seen
        finally:
            ending.set()
            watching.join()
