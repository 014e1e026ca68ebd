"""Another address where one is taken."""

from __future__ import annotations

import errno
import socket

import pytest

from komas.cli.ports import is_taken, say_taken


def test_of_several_addresses_those_that_are_taken_are_replaced() -> None:
    """The others stay."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as other:
        port, free = taken.getsockname()[1], other.getsockname()[1]
        other.close()
        said = say_taken([f"127.0.0.1:{port}", f"localhost:{free}"])
    assert said.startswith(f"127.0.0.1:{port} is taken by another program; try --bind 127.0.0.1:")
    assert said.endswith(f",localhost:{free}")
    assert f"127.0.0.1:{port}," not in said


def test_the_last_port_has_none_behind_it() -> None:
    """So there is none to try."""
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", 65_535))
        except OSError:
            pytest.skip("another program has it")
        taken.listen()
        assert say_taken(["127.0.0.1:65535"]) == "127.0.0.1:65535 is taken by another program; give another --bind"


def test_only_an_address_in_use_is_taken() -> None:
    """Not one of another machine, nor one for which a right is missing."""
    assert is_taken(OSError(errno.EADDRINUSE, ""))
    assert not is_taken(OSError(errno.EACCES, ""))
    assert not is_taken(None)
