"""uvicorn's HTTP protocol with a bound on what comes beside a body, and without a change of protocol."""

import asyncio
from collections.abc import Sized
from http import HTTPStatus

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEAD = 32 * 1024
"""Bytes of a request's target and headers, trailers included."""
OFFERS = (b"upgrade", b"http2-settings")
"""Headers by which a client offers to change the protocol; so does the word `upgrade` in `Connection`."""


class _Flow(FlowControl):
    """Reads no more while requests wait for the one before them: each takes a hundred times its bytes."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class BoundedProtocol(HttpToolsProtocol):
    """Answers 431 to a request with a head of more than `MAX_HEAD` bytes, and closes the connection.

    What the parser holds and has not yet handed on is bounded too, by `MAX_HEAD` and one packet. So are the
    requests that a client sends without waiting for an answer: they come from one packet.

    An offer to change the protocol is dropped and the request is served as it is. Java's `HttpClient` and
    Spring offer h2c by default, also beside a body, which the parser would skip.
    """

    _head = 0  # bytes of the target and the headers of this request
    _held = 0  # bytes that the parser took since it last handed something on
    _offered = False  # the parser has stopped behind a head with an offer
    _refusal: tuple[HTTPStatus, str] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        self._held += len(data)
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "This is not valid HTTP.")
        else:
            if self._held > MAX_HEAD:
                self._refuse_head()

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                data = self._without_offer() + data[stopped.args[0] :]
            else:
                return

    def _without_offer(self) -> bytes:
        """The head once more, for a new parser: the old one cannot continue."""
        self._offered = False
        start = b"%b %b HTTP/%b" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
        )
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        kept = [b"%b: %b" % (name, _plain(name, value)) for name, value in self.headers if name not in OFFERS]
        return b"\r\n".join([start, *kept, b"", b""])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = self._held = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value) + len(": \r\n"))

    def _count(self, more: int) -> None:
        self._head += more
        if self._head > MAX_HEAD:
            self._refuse_head()
            raise httptools.HttpParserError  # the parser goes no further

    def on_headers_complete(self) -> None:
        self._held = 0
        self._offered = self.parser.should_upgrade()
        if self._offered and self.parser.get_method() == b"CONNECT":
            raise httptools.HttpParserError  # what follows is another protocol
        if not self._offered:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._held = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._held = 0
        if not self._offered:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._refusal is not None and self.cycle.response_complete:
            self._send_refusal(*self._refusal)

    def _refuse_head(self) -> None:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        self._refuse(status, f"The head of a request may have {MAX_HEAD // 1024} KiB at most.")

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        """Read no more. Requests that came whole before this one are answered first."""
        if self._refusal is not None:
            return
        self._refusal = status, reason
        self.flow.pause_reading()
        if not self.cycle or self.cycle.response_complete or self.cycle.more_body:
            self._send_refusal(*self._refusal)

    def _send_refusal(self, status: HTTPStatus, reason: str) -> None:
        if not self.cycle or self.cycle.response_complete or not self.cycle.response_started:
            head = (
                b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(STATUS_LINE[status] + head % len(reason) + reason.encode())
        self.transport.close()


def _plain(name: bytes, value: bytes) -> bytes:
    if name != b"connection":
        return value
    return b", ".join(word for item in value.split(b",") if (word := item.strip()).lower() not in OFFERS)
