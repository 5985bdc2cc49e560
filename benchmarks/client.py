"""An open-loop client: a request's time runs from its moment in the schedule (no coordinated omission)."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final
from uuid import uuid4

from msgspec import Struct

MAX_UNANSWERED: Final = 400
"""Requests under way at once: beyond it the system has fallen behind, and the run ends."""
PATIENCE: Final = 20.0
"""Seconds that the last answers may take."""


class Answered(Struct, frozen=True):
    """When a request was due, left and was answered, by the monotonic clock."""

    id: str
    due: float
    sent: float
    answered: float


class FellBehindError(Exception):
    """The system takes in less than it is asked."""


class Connections:
    """Connections that are kept open, spoken to in plain bytes: the client takes its share of the machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, line: str, header: str = "X: y", body: bytes = b"") -> bytes:
        """The answer's body. Raises `RuntimeError` where it is no success."""
        connection = self._kept() or await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = connection
        head = f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n{header}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        content = await reader.readexactly(length)
        self._idle.append(connection)
        if not answer.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{line}: {(answer + content).decode()}")
        return content

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection[0].at_eof():  # else the server has closed what nobody used for long
                return connection
            connection[1].close()
        return None

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


async def new_appointment(appointments: Connections) -> str:
    """The id of one that was just started, of people of its own."""
    people = f'{{"physician_id":"{uuid4()}","patient_id":"{uuid4()}"}}'.encode()
    answer = await appointments.ask("POST /", "Content-Type: application/json", people)
    return answer.partition(b'"id":"')[2][:36].decode()


def schedule(began: float, rate: float, count: int) -> Iterator[float]:
    """The moments of so many requests at a steady rate."""
    return (began + number / rate for number in range(count))


async def open_loop(
    ids: Sequence[str], rate: float, finish: Callable[[str], Awaitable[object]]
) -> list[Answered]:
    """Finish each at its moment, whether or not the ones before were answered.

    Raises `FellBehindError` when too many are under way, or the last ones take too long.
    """
    under_way: set[asyncio.Task[None]] = set()
    answered: list[Answered] = []

    async def one(id_: str, due: float) -> None:
        sent = time.perf_counter()
        await finish(id_)
        answered.append(Answered(id_, due, sent, time.perf_counter()))

    try:
        for id_, due in zip(ids, schedule(time.perf_counter() + 0.1, rate, len(ids)), strict=True):
            await asyncio.sleep(due - time.perf_counter())
            task = asyncio.create_task(one(id_, due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            if len(under_way) > MAX_UNANSWERED:
                raise FellBehindError
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*under_way)
    except TimeoutError as error:
        raise FellBehindError from error
    finally:
        for task in under_way:
            task.cancel()
    return answered
