"""Requests as no client library would send them, over a socket to real processes, which outlive them all."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from http import HTTPStatus
from selectors import EVENT_READ, DefaultSelector
from typing import Final, NamedTuple, cast
from uuid import uuid4

import httpx
import pytest
from support.processes import Pair, Service, eventually

from clinic.adapters.charge_waiters import MAX_WAITERS

ANSWERS_TIMEOUT = 20.0
PROBE = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
PATIENT = b"GET /%b/ HTTP/1.1\r\nHost: x\r\nPrefer: wait=30\r\n\r\n"

JSON = b"Content-Type: application/json\r\n"
START = (
    b'{"physician_id":"8c9b1b0e-5d3f-4c39-9a53-0b9d3b1f8f10",'
    b'"patient_id":"2f1c7f3a-6b0c-4a57-8f6e-7f9f1d2b3c4d"}'
)
H2C = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\n"
    + JSON
)


class Answer(NamedTuple):
    status: int
    media_type: str = "application/problem+json"


LIVE = Answer(200, "application/json")
STARTED = Answer(201, "application/json")
NO_CONTENT = Answer(204, "")
CONTINUE = Answer(100, "")
NO_HTTP = Answer(400, "text/plain")
BIG_HEAD = Answer(431, "text/plain")
BAD, NOT_FOUND, NOT_ALLOWED, BIG_BODY, NO_JSON = (Answer(each) for each in (400, 404, 405, 413, 415))


def ask(
    target: bytes, headers: bytes = b"", *, method: bytes = b"GET", version: bytes = b"HTTP/1.1"
) -> bytes:
    return b"%b %b %b\r\nHost: x\r\n%b\r\n" % (method, target, version, headers)


def post(
    body: bytes,
    headers: bytes = JSON,
    *,
    target: bytes = b"/",
    method: bytes = b"POST",
    length: bytes | None = None,
) -> bytes:
    declared = b"Content-Length: %b\r\n" % (length or b"%d" % len(body))
    return ask(target, headers + declared, method=method) + body


def chunked(*chunks: bytes, coding: bytes = b"chunked", headers: bytes = JSON) -> bytes:
    return ask(b"/", headers + b"Transfer-Encoding: %b\r\n" % coding, method=b"POST") + b"".join(chunks)


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


END = b"0\r\n\r\n"
SERVED: Final[dict[str, tuple[bytes, list[Answer]]]] = {
    "two spaces before the target": (b"GET  /health/live HTTP/1.1\r\nHost: x\r\n\r\n", [LIVE]),
    "no host": (b"GET /health/live HTTP/1.1\r\n\r\n", [LIVE]),
    "line breaks before a request": (b"\r\n\r\n" + ask(b"/health/live"), [LIVE]),
    "an absolute target": (ask(b"http://other.example/health/live"), [LIVE]),
    "a body for an absolute target": (post(START, target=b"http://other.example/"), [STARTED]),
    "a star": (ask(b"*"), [NOT_FOUND]),
    "TRACE": (ask(b"/", method=b"TRACE"), [NOT_ALLOWED]),
    "PROPFIND": (ask(b"/", method=b"PROPFIND"), [NOT_ALLOWED]),
    "DELETE": (ask(b"/", method=b"DELETE"), [NOT_ALLOWED]),
    "PUT with a body": (post(START, method=b"PUT"), [NOT_ALLOWED]),
    "HEAD of nothing": (ask(b"/nothing", method=b"HEAD"), [NOT_FOUND]),
    "OPTIONS of an appointment": (
        ask(b"/84ab6121-c4a8-4684-8cc2-b03024ec0f1d", method=b"OPTIONS"),
        [NO_CONTENT],
    ),
    "OPTIONS of nothing": (ask(b"/nothing/at/all", method=b"OPTIONS"), [NOT_FOUND]),
    "a header in Latin-1": (ask(b"/health/live", b"X: \xff\r\n"), [LIVE]),
    "credentials in Latin-1": (ask(b"/health/live", b"Authorization: \xff\r\n"), [LIVE]),
    "an offer of HTTP/2 beside a body": (post(START, H2C), [STARTED]),
    "an offer of a websocket": (
        ask(b"/health/live", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        [LIVE],
    ),
    "requests at once": (
        ask(b"/health/live") + ask(b"/nothing/at/all") + post(START),
        [LIVE, NOT_FOUND, STARTED],
    ),
    "a body that is asked for": (post(START, JSON + b"Expect: 100-continue\r\n"), [CONTINUE, STARTED]),
    "another expectation": (post(START, JSON + b"Expect: 200-ok\r\n"), [STARTED]),
    "a body for a GET": (post(b"hello", target=b"/health/live", method=b"GET"), [LIVE]),
    "one chunk": (chunked(chunk(START), END), [STARTED]),
    "chunks with an extension": (chunked(chunk(START[:9], b";a=b"), chunk(START[9:]), END), [STARTED]),
    "a trailer": (chunked(chunk(START), b"0\r\nX: y\r\n\r\n"), [STARTED]),
    "a chunk over 64 KiB": (chunked(chunk(b" " * 65_537), END), [BIG_BODY]),
    "a body over 64 KiB": (post(b" " * 65_537), [BIG_BODY]),
    "a body of 64 KiB": (post(START.ljust(65_536)), [STARTED]),
    "no content type": (post(START, b""), [NO_JSON]),
    "a form": (post(b"a=b", b"Content-Type: application/x-www-form-urlencoded\r\n"), [NO_JSON]),
    "a form of parts": (post(b"a=b", b"Content-Type: multipart/form-data\r\n"), [NO_JSON]),
    "a content type of nonsense": (post(START, b"Content-Type: ;;;=\xff\r\n"), [NO_JSON]),
    "a content type with a charset": (
        post(START, b"Content-Type: application/json; charset=utf-8\r\n"),
        [STARTED],
    ),
    "a body in UTF-16": (
        post(START.decode().encode("utf-16"), b"Content-Type: application/json; charset=utf-16\r\n"),
        [BAD],
    ),
    "a body in gzip": (
        post(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", JSON + b"Content-Encoding: gzip\r\n"),
        [BAD],
    ),
    "a byte order mark": (post(b"\xef\xbb\xbf" + START), [BAD]),
    "an empty body": (post(b""), [BAD]),
    "null": (post(b"null"), [BAD]),
    "deep lists": (post(b"[" * 60_000), [BAD]),
    "deep objects": (post(b'{"a":' * 10_000), [BAD]),
    "a deep field": (post(b'{"physician_id":' + b"[" * 30_000), [BAD]),
    "a deep field beside good ones": (
        post(START[:-1] + b',"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
        [BAD],
    ),
    "a field twice": (post(START[:-1] + b',"patient_id":"2f1c7f3a-6b0c-4a57-8f6e-7f9f1d2b3c4d"}'), [BAD]),
    "a huge number": (post(b'{"physician_id":' + b"9" * 60_000 + b"}"), [BAD]),
    "a huge exponent": (post(b'{"physician_id":1e999999999}'), [BAD]),
    "NaN": (post(b'{"physician_id":NaN}'), [BAD]),
    "a lone surrogate": (post(rb'{"physician_id":"\ud800"}'), [BAD]),
    "a lone surrogate as a name": (post(rb'{"\ud800":1}'), [BAD]),
    "a null character": (post(rb'{"physician_id":"\u0000","\u0000":1}'), [BAD]),
    "bytes that are no text": (post(b'{"physician_id":"\xff"}'), [BAD]),
    "percents of nonsense": (ask(b"/%zz"), [NOT_FOUND]),
    "a percent at the end": (ask(b"/%"), [NOT_FOUND]),
    "a path that is no UTF-8": (ask(b"/%ff%fe"), [NOT_FOUND]),
    "a null character in a path": (ask(b"/%00"), [NOT_FOUND]),
    "a surrogate in a path": (ask(b"/%ed%a0%80"), [NOT_FOUND]),
    "two slashes": (ask(b"//health//live"), [LIVE]),
    "dots": (ask(b"/../../etc/passwd"), [NOT_FOUND]),
    "dots in percents": (ask(b"/docs/%2e%2e/%2e%2e/etc/passwd"), [NOT_FOUND]),
    "a fragment": (ask(b"/health/live#x"), [LIVE]),
    "a query that is no UTF-8": (ask(b"/?physician_id=%ff"), [BAD]),
    "a null character in a query": (ask(b"/?physician_id=%00"), [BAD]),
    "a surrogate in a cursor": (ask(b"/?after=%ed%a0%80"), [BAD]),
    "a cursor of nonsense": (ask(b"/?after=%00%ff"), [BAD]),
    "a limit of 5,000 digits": (ask(b"/?limit=" + b"9" * 5_000), [BAD]),
    "a limit in full-width digits": (ask(b"/?limit=%EF%BC%92"), [BAD]),
    "3,000 parameters": (ask(b"/?" + b"&".join(b"a%d=1" % each for each in range(3_000))), [BAD]),
    "an id of nonsense": (post(b"", b"", target=b"/nonsense/"), [NOT_FOUND]),
    "an id that nobody knows": (
        post(b"", b"", target=b"/84ab6121-c4a8-4684-8cc2-b03024ec0f1d/"),
        [NOT_FOUND],
    ),
}
"""What is answered, and the connection serves on."""

CLOSED: Final[dict[str, tuple[bytes, list[Answer]]]] = {
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [NO_HTTP]),
    "no method": (b" / HTTP/1.1\r\nHost: x\r\n\r\n", [NO_HTTP]),
    "a method in lower case": (ask(b"/", method=b"get"), [NO_HTTP]),
    "an unknown method": (ask(b"/", method=b"BREW"), [NO_HTTP]),
    "no target": (b"GET HTTP/1.1\r\nHost: x\r\n\r\n", [NO_HTTP]),
    "a space in a target": (ask(b"/a b"), [NO_HTTP]),
    "a target that is no ASCII": (ask(b"/\xff"), [NO_HTTP]),
    "a null byte in a target": (ask(b"/a\x00b"), [NO_HTTP]),
    "lines that end with LF": (b"GET /health/live HTTP/1.1\nHost: x\n\n", [NO_HTTP]),
    "lines that end with CR": (b"GET /health/live HTTP/1.1\rHost: x\r\r", [NO_HTTP]),
    "HTTP/0.9": (b"GET /health/live\r\n\r\n", [LIVE]),
    "HTTP/1.0": (ask(b"/health/live", version=b"HTTP/1.0"), [LIVE]),
    "HTTP/1.9": (ask(b"/health/live", version=b"HTTP/1.9"), [NO_HTTP]),
    "HTTP/3": (ask(b"/health/live", version=b"HTTP/3.0"), [NO_HTTP]),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [NO_HTTP]),
    "CONNECT": (ask(b"x:443", method=b"CONNECT"), [NO_HTTP]),
    "a header of 33 KiB": (ask(b"/health/live", b"X: %b\r\n" % (b"a" * 33_792)), [BIG_HEAD]),
    "6,000 headers": (ask(b"/health/live", b"X: a\r\n" * 6_000), [BIG_HEAD]),
    "a target of 33 KiB": (ask(b"/?" + b"a" * 33_792), [BIG_HEAD]),
    "a header without a colon": (ask(b"/", b"Nonsense\r\n"), [NO_HTTP]),
    "a header with a space in its name": (ask(b"/", b"X Y: 1\r\n"), [NO_HTTP]),
    "a header without a name": (ask(b"/", b": 1\r\n"), [NO_HTTP]),
    "a null byte in a header": (ask(b"/", b"X: a\x00b\r\n"), [NO_HTTP]),
    "a header of two lines": (ask(b"/", b"X: a\r\n b\r\n"), [NO_HTTP]),
    "two lengths": (post(b"{}", JSON + b"Content-Length: 1\r\n"), [NO_HTTP]),
    "a length and chunks": (chunked(chunk(START), END, headers=JSON + b"Content-Length: 5\r\n"), [NO_HTTP]),
    "a negative length": (post(b"{}", length=b"-1"), [NO_HTTP]),
    "a length in words": (post(b"{}", length=b"two"), [NO_HTTP]),
    "a length beyond all numbers": (post(b"{}", length=b"9" * 30), [NO_HTTP]),
    "a body longer than declared": (post(START, length=b"20"), [BAD, NO_HTTP]),
    "a chunk's size in words": (chunked(b"two\r\n{}\r\n", END), [NO_HTTP]),
    "a negative chunk": (chunked(b"-2\r\n{}\r\n", END), [NO_HTTP]),
    "a chunk beyond all numbers": (chunked(b"f" * 20 + b"\r\n{}\r\n", END), [NO_HTTP]),
    "a chunk longer than declared": (chunked(b"1\r\n{}\r\n", END), [NO_HTTP]),
    "chunks that are not the last coding": (chunked(coding=b"chunked, gzip"), [NO_HTTP]),
    "a coding that is not known": (chunked(coding=b"gzip"), [NO_HTTP]),
    "requests at once, the last one wrong": (ask(b"/health/live") + b"nonsense\r\n\r\n", [LIVE, NO_HTTP]),
}
"""What ends the connection, once it is answered."""


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both services, which must end in order and have logged no failure."""
    pair = Pair(tmp_path_factory.mktemp("raw"), {})
    try:
        asyncio.run(pair.started())
        yield pair
        for service in pair.services:
            assert asyncio.run(service.stopped()) == 0
            assert "Traceback" not in service.complained
            assert "unforeseen" not in service.complained
    finally:
        for service in pair.services:
            service.clean_up()


@pytest.mark.parametrize(("sent", "expected"), SERVED.values(), ids=SERVED)
def test_a_connection_outlives_an_odd_request(sent: bytes, expected: list[Answer], clinic: Pair) -> None:
    assert answers(clinic.appointment, sent + PROBE) == [*expected, LIVE]


@pytest.mark.parametrize(("sent", "expected"), CLOSED.values(), ids=CLOSED)
def test_a_request_that_is_no_http_is_answered_and_the_connection_closed(
    sent: bytes, expected: list[Answer], clinic: Pair
) -> None:
    assert answers(clinic.appointment, sent) == expected
    assert answers(clinic.appointment, PROBE) == [LIVE]


@pytest.mark.parametrize("sent", [b"\r\n\r\n", b"GET /heal", post(START, length=b"500"), chunked(b"5\r\n{}")])
def test_a_client_that_leaves_in_the_middle_gets_nothing(sent: bytes, clinic: Pair) -> None:
    with connection(clinic.appointment) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert answers(clinic.appointment, PROBE) == [LIVE]


def test_a_body_that_is_declared_too_large_is_refused_before_it_comes(clinic: Pair) -> None:
    with connection(clinic.appointment) as client:
        client.sendall(post(b"{", length=b"1000000000"))
        assert client.recv(12) == b"HTTP/1.1 413"


async def test_clients_that_leave_while_they_wait_leave_their_places_free(clinic: Pair) -> None:
    with ExitStack() as clients, DefaultSelector() as answered:
        for _ in range(MAX_WAITERS + 1):
            client = clients.enter_context(connection(clinic.financial))
            client.sendall(PATIENT % str(uuid4()).encode())
            answered.register(client, EVENT_READ)
        ((refused, _), *_) = answered.select(ANSWERS_TIMEOUT)  # whoever finds every place taken
        assert cast("socket.socket", refused.fileobj).recv(12) == b"HTTP/1.1 503"
    await eventually(lambda: can_wait(clinic.financial), within=ANSWERS_TIMEOUT)  # the waits last 30 s


async def can_wait(service: Service) -> bool:
    async with httpx.AsyncClient(base_url=service.url, timeout=ANSWERS_TIMEOUT, trust_env=False) as client:
        answer = await client.get(f"/{uuid4()}/", headers={"Prefer": "wait=1"})
        return answer.status_code == HTTPStatus.NOT_FOUND


def connection(service: Service) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), ANSWERS_TIMEOUT)


def answers(service: Service, sent: bytes) -> list[Answer]:
    """All that a connection answers until the service closes it."""
    received = b""
    with connection(service) as client:
        client.sendall(sent)
        while more := client.recv(65_536):
            received += more
    return list(parsed(received, is_head=sent.startswith(b"HEAD")))


def parsed(received: bytes, *, is_head: bool) -> Iterator[Answer]:
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        length = 0 if is_head else int(headers.get("content-length", 0))
        received, is_head = received[length:], False
        yield Answer(int(status.split()[1]), headers.get("content-type", "").partition(";")[0])
