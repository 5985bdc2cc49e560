"""A connection to MongoDB that can be cut after the server has done what it was asked, before anybody hears
of it.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread
from urllib.parse import urlsplit


class Proxy:
    """Between a service and a server, message by message. `swallowed` counts the answers that nobody heard.

    Each answer goes through `edit`.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._server = address.hostname or "", address.port or 0
        self._sought = b""
        self._left = 0
        self._lock = Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._accepting = Thread(target=self._accept)
        self._open: list[tuple[socket.socket, socket.socket]] = []
        self._pumping: list[Thread] = []
        self.swallowed = 0
        self.edit: Callable[[bytes], bytes] = lambda answer: answer
        # A client that looked for the other members of a replica set would find the way around.
        self.url = f"mongodb://127.0.0.1:{self._listening.getsockname()[1]}/?directConnection=true"

    def cut_after(self, sought: bytes, times: int = 1) -> None:
        """The next requests that hold these bytes reach the server; its answers are swallowed, and the
        connection closed.
        """
        with self._lock:
            self._sought, self._left = sought, times

    def open(self) -> None:
        self._accepting.start()

    def close(self) -> None:
        _end(self._listening)
        self._accepting.join()
        for ends in self._open:
            _end(*ends)
        for thread in self._pumping:
            thread.join()
        for ends in self._open:
            for end in ends:
                end.close()
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._server)
        except OSError:
            client.close()
            return
        self._open.append((client, server))
        is_cut = Event()
        for work in (self._ask, self._answer):
            thread = Thread(target=work, args=(client, server, is_cut))
            self._pumping.append(thread)
            thread.start()

    def _ask(self, client: socket.socket, server: socket.socket, is_cut: Event) -> None:
        with suppress(OSError):
            while request := _message(client):
                with self._lock:
                    if self._left and self._sought in request:
                        self._left -= 1
                        is_cut.set()
                server.sendall(request)
        _end(client, server)

    def _answer(self, client: socket.socket, server: socket.socket, is_cut: Event) -> None:
        with suppress(OSError):
            while answer := _message(server):
                if is_cut.is_set():
                    with self._lock:
                        self.swallowed += 1
                    break
                client.sendall(self.edit(answer))
        _end(client, server)


def _end(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _message(stream: socket.socket) -> bytes:
    """Every message of MongoDB's protocol begins with its length. Empty at the end."""
    length = _exactly(stream, 4)
    return length and length + _exactly(stream, int.from_bytes(length, "little") - 4)


def _exactly(stream: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        if not (part := stream.recv(count - len(found))):
            return b""
        found += part
    return found


@contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    """A proxy in front of that server; its `url` leads through it."""
    proxy = Proxy(url)
    proxy.open()
    try:
        yield proxy
    finally:
        proxy.close()
