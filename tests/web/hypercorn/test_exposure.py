"""Whether what Hypercorn is bound to is beyond loopback."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypercorn.config import Config

from komas.web.hypercorn.exposure import is_exposed


@pytest.mark.parametrize(
    ("key", "binds", "exposed"),
    [
        ("bind", ["127.0.0.1:8000", "[::1]:8000", "localhost:8000", "unix:/run/komas.sock"], False),
        ("bind", ["127.0.0.1:8000", "0.0.0.0:8000"], True),
        ("bind", ["[::]:8000"], True),
        ("insecure_bind", ["0.0.0.0:8000"], True),
        ("quic_bind", ["192.0.2.1:443"], True),
    ],
)
def test_what_hypercorn_is_bound_to_decides_whether_others_reach_us(key: str, binds: list[str], exposed: bool) -> None:  # noqa: FBT001 - a table
    """Every one of its lists."""
    config = Config()
    setattr(config, key, binds)
    assert is_exposed(config) is exposed


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_a_socket_that_was_handed_down_is_looked_at(tmp_path: Path) -> None:
    """As systemd does."""
    with socket.socket() as loopback, socket.socket() as everywhere, socket.socket(socket.AF_UNIX) as unix:
        loopback.bind(("127.0.0.1", 0))
        everywhere.bind(("0.0.0.0", 0))
        unix.bind(str(tmp_path / "socket"))
        for listener, exposed in ((loopback, False), (everywhere, True), (unix, False)):
            config = Config()
            config.bind = [f"fd://{listener.fileno()}"]
            assert is_exposed(config) is exposed
