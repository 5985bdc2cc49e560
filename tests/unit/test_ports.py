"""No two processes of the tests choose the same port, and nobody's connection is given one of theirs."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.ports import BELOW_CLIENTS, Ports, free_ports

FIRST_OF_CLIENTS = 32_768
"""By default on Linux; elsewhere it is higher."""
BLOCK = 4


@pytest.fixture
def two_blocks() -> range:
    """Ports that nobody else tries."""
    ports = free_ports(2 * BLOCK)
    return range(ports[0], ports[-1] + 1)


@pytest.fixture
def holders(two_blocks: range) -> Iterator[list[Ports]]:
    """What three processes would hold."""
    with ExitStack() as stack:
        made = [Ports(two_blocks, BLOCK) for _ in range(3)]
        for each in made:
            stack.callback(each.release)
        yield made


def test_a_port_is_given_to_one_process_and_once(holders: list[Ports]) -> None:
    first, second, _ = holders

    taken = [*first.take(1), *second.take(1), *first.take(2), *second.take(2)]

    assert len(set(taken)) == 2 * (BLOCK - 1)


def test_a_block_that_others_hold_is_passed_over(holders: list[Ports]) -> None:
    first, second, third = holders
    first.take(1)
    second.take(1)

    with pytest.raises(AssertionError, match="no free ports"):
        third.take(1)


def test_a_block_is_there_again_once_its_process_has_ended(holders: list[Ports]) -> None:
    first, second, third = holders
    first.take(1)
    taken = second.take(1)

    second.release()

    assert third.take(1) == taken


def test_a_port_in_use_at_one_address_is_passed_over(two_blocks: range, holders: list[Ports]) -> None:
    in_use = (two_blocks[1], two_blocks[BLOCK + 1])
    with ExitStack() as stack:
        for port in in_use:
            stack.enter_context(socket.create_server(("127.0.0.1", port)))

        assert holders[0].take(1)[0] not in in_use


def test_ports_in_a_row_are_in_a_row() -> None:
    first, *more = free_ports(11)
    assert more == list(range(first + 1, first + 11))


def test_no_connection_is_given_a_port_of_the_tests() -> None:
    assert max(BELOW_CLIENTS) < FIRST_OF_CLIENTS
