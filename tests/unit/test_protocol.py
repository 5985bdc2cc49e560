"""A connection, byte by byte: heads are bounded, offers to change the protocol are dropped."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from clinic.entrypoints.protocol import MAX_HEAD, BoundedProtocol

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
H2C = (
    b"POST /%d HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\nContent-Length: %d\r\n\r\n%b"
)


class Wire(asyncio.Transport):
    """A connection whose other end is the test."""

    protocol: BoundedProtocol

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.answered_when_resumed: list[int] = []

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        self.answered_when_resumed.append(self.written.count(b"HTTP/1.1 200"))


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers what it was asked."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    names = [name.decode() for name, _ in scope["headers"]]
    asked = {"method": scope["method"], "path": scope["path"], "body": body.decode(), "headers": names}
    answer = json.dumps(asked).encode()
    length = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": answer})


class Connection:
    """A client that sends its bytes in the pieces that the test chooses."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.state = ServerState()
        self._protocol = BoundedProtocol(
            Config(echo, http=BoundedProtocol, log_config=None, access_log=False), self.state, {}
        )
        self.wire.protocol = self._protocol
        self._protocol.connection_made(self.wire)

    def send(self, *pieces: bytes) -> None:
        for each in pieces:
            if not self.wire.closed:
                self._protocol.data_received(each)

    async def answers(self) -> list[tuple[int, Any]]:
        """Each with its status, and what it says."""
        while self.state.tasks:
            await asyncio.wait(self.state.tasks)
        return list(_parsed(self.wire.written))


def _parsed(written: bytes) -> Iterator[tuple[int, Any]]:
    while written:
        head, _, rest = written.partition(b"\r\n\r\n")
        (length,) = [
            int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        ]
        body, written = rest[:length], rest[length:]
        yield int(head[9:12]), json.loads(body) if body.startswith(b"{") else body.decode()


async def test_the_body_behind_an_offer_of_http_2_is_read() -> None:
    connection = Connection()
    connection.send(H2C % (1, 5, b"hello"))
    ((status, asked),) = await connection.answers()
    assert (status, asked["method"], asked["path"], asked["body"]) == (200, "POST", "/1", "hello")
    assert asked["headers"] == ["host", "connection", "content-length"]
    assert not connection.wire.closed


@pytest.mark.parametrize("offer", [b"h2c", b"websocket", b"TLS/1.0, h2c"])
async def test_an_offer_without_a_body_is_dropped(offer: bytes) -> None:
    connection = Connection()
    connection.send(
        b"GET /1 HTTP/1.1\r\nHost: x\r\nUpgrade: %b\r\nConnection: close, UPGRADE\r\n\r\n" % offer
    )
    ((status, asked),) = await connection.answers()
    assert (status, asked["path"]) == (200, "/1")
    assert connection.wire.closed  # the rest of `Connection` still holds


async def test_several_requests_in_a_packet_are_answered_in_their_order() -> None:
    connection = Connection()
    connection.send(GET % 1 + H2C % (2, 5, b"hello") + POST % (3, 2, b"hi") + H2C % (4, 0, b"") + GET % 5)
    answers = await connection.answers()
    assert [asked["path"] for _, asked in answers] == ["/1", "/2", "/3", "/4", "/5"]
    assert [asked["body"] for _, asked in answers] == ["", "hello", "hi", "", ""]


async def test_no_more_is_read_while_requests_wait_for_the_one_before_them() -> None:
    connection = Connection()
    connection.send(b"".join(GET % each for each in range(50)))
    assert len(await connection.answers()) == 50
    assert connection.wire.answered_when_resumed == [49]
    connection.send(POST % (50, 5, b"he"), b"llo")
    assert (await connection.answers())[-1][1]["body"] == "hello"


async def test_a_request_may_come_in_any_pieces() -> None:
    sent = GET % 1 + H2C % (2, 5, b"hello") + GET % 3
    for cut in range(1, len(sent)):
        connection = Connection()
        connection.send(sent[:cut], sent[cut:])
        answers = await connection.answers()
        assert [(asked["path"], asked["body"]) for _, asked in answers] == [
            ("/1", ""),
            ("/2", "hello"),
            ("/3", ""),
        ]
    connection = Connection()
    connection.send(*(sent[each : each + 1] for each in range(len(sent))))
    assert len(await connection.answers()) == 3


async def test_the_bound_is_on_each_head_not_on_the_connection() -> None:
    connection = Connection()
    large = b"GET /%d HTTP/1.1\r\nX: %b\r\n\r\n"
    for number in range(10):
        connection.send(*(large % (number, b"x" * (MAX_HEAD - 1000)), POST % (number, 40_000, b"x" * 40_000)))
        await connection.answers()
    answers = await connection.answers()
    assert [status for status, _ in answers] == [200] * 20
    assert not connection.wire.closed


TOO_LARGE = {
    "a long target": b"GET /" + b"x" * MAX_HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long value": b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n",
    "a long name": b"GET / HTTP/1.1\r\n" + b"x" * MAX_HEAD + b": x\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * MAX_HEAD + b"\r\n",
    "a head that never ends": b"GET / HTTP/1.1\r\nX: " + b"x" * 3 * MAX_HEAD,
    "a target that never ends": b"GET /" + b"x" * 3 * MAX_HEAD,
    "an offer": b"POST / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\nX: "
    + b"x" * MAX_HEAD
    + b"\r\n\r\n",
    "trailers": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 3 * MAX_HEAD,
}


@pytest.mark.parametrize("sent", TOO_LARGE.values(), ids=TOO_LARGE)
@pytest.mark.parametrize("size", [1000, 10 * MAX_HEAD])
async def test_a_larger_head_is_a_431_and_the_end(sent: bytes, size: int) -> None:
    connection = Connection()
    pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
    connection.send(*pieces, b"x", b"x" * MAX_HEAD)
    ((status, reason),) = await connection.answers()
    assert (status, reason) == (431, "The head of a request may have 32 KiB at most.")
    assert connection.wire.closed


async def test_what_is_read_of_a_head_is_bounded_before_it_ends() -> None:
    connection, sent = Connection(), 0
    connection.send(b"GET / HTTP/1.1\r\nX: ")
    while not connection.wire.closed:
        connection.send(b"x" * 1000)
        sent += 1000
    assert sent <= MAX_HEAD + 1000


@pytest.mark.parametrize(
    "bad", [b"nonsense\r\n\r\n", TOO_LARGE["a long value"], b"CONNECT /x HTTP/1.1\r\n\r\n"]
)
async def test_requests_before_a_refused_one_are_answered_first(bad: bytes) -> None:
    connection = Connection()
    connection.send(GET % 1 + POST % (2, 2, b"hi") + bad + GET % 3)
    connection.send(GET % 4)
    statuses = [status for status, _ in await connection.answers()]
    assert statuses in ([200, 200, 400], [200, 200, 431])
    assert connection.wire.closed


async def test_a_body_that_breaks_is_refused_at_once() -> None:
    connection = Connection()
    connection.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n")
    ((status, _),) = list(_parsed(connection.wire.written))
    assert status == 400
    assert connection.wire.closed
