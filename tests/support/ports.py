"""Ports for what the tests start, below those that the system gives to clients: no connection of anybody's
takes one while a server is down.
"""

import random
import socket

BELOW_CLIENTS = range(20_000, 32_000)
BLOCK = 100


class Ports:
    """Blocks of ports of its own: it holds the first of each, and hands out the others, each once. So no two
    processes choose the same port.
    """

    def __init__(self, within: range = BELOW_CLIENTS, block: int = BLOCK) -> None:
        firsts = within[::block]
        self._blocks = random.sample(firsts, len(firsts))
        self._block = block
        self._held: list[socket.socket] = []
        self._left = range(0)

    def take(self, count: int) -> list[int]:
        """So many free ports in a row."""
        while True:
            while len(self._left) < count:
                self._left = self._own_block()
            ports, self._left = self._left[:count], self._left[count:]
            if all(_is_free(port) for port in ports):
                return list(ports)

    def release(self) -> None:
        """Leave its blocks to others."""
        while self._held:
            self._held.pop().close()

    def _own_block(self) -> range:
        """Empty where it is another's."""
        assert self._blocks, "there are no free ports"
        first = self._blocks.pop()
        if (held := _bound(first)) is None:
            return range(0)
        self._held.append(held)
        return range(first + 1, first + self._block)


def _is_free(port: int) -> bool:
    if (trying := _bound(port)) is not None:
        trying.close()
    return trying is not None


def _bound(port: int) -> socket.socket | None:
    """At every address; None where somebody has it at one."""
    trying = socket.socket()
    try:
        trying.bind(("", port))
    except OSError:
        trying.close()
        return None
    return trying


free_ports = Ports().take
"""Those of this process, which holds them until it ends."""
