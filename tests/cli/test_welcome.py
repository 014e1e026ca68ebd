"""What is printed once a server listens."""

from __future__ import annotations

from pathlib import Path

from komas.cli.welcome import welcome
from komas.settings import Settings

TCP, UNIX = "http://127.0.0.1:8000", "http://unix:/run/k o.sock"


def test_a_unix_socket_is_shown_with_the_way_to_ask_it() -> None:
    """No browser opens it, and what curl needs is seldom known by heart."""
    assert welcome(Settings(), [TCP]) == [f"komas listens on {TCP}"]
    assert welcome(Settings(), [UNIX]) == [
        "komas listens on unix:/run/k o.sock; curl --unix-socket '/run/k o.sock' http://localhost/readyz"
    ]
    [line] = welcome(Settings(), ["https://unix:/run/k"])
    assert line.endswith("curl --unix-socket /run/k https://localhost/readyz")


def test_a_demo_names_an_address_that_a_browser_opens(tmp_path: Path) -> None:
    """Where there is one."""
    settings = Settings(demo=True, data_dir=tmp_path, default_symbols=("BTCUSDT",))
    lines = welcome(settings, [UNIX, TCP])
    assert f"open {TCP}/ in a browser" in lines[2]
    assert f"  curl -N '{TCP}/api/ws/sse/prices?symbols=BTCUSDT'" in lines
    lines = welcome(settings, [UNIX])
    assert "browser" not in lines[1]
    assert "  curl --unix-socket '/run/k o.sock' -N 'http://localhost/api/ws/sse/prices?symbols=BTCUSDT'" in lines
    assert not any("komas watch" in line for line in lines)
