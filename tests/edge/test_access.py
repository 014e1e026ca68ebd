"""Who may change something, who may read, and what web pages may do."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from werkzeug.datastructures import Headers

from komas.edge.access import Caller
from komas.settings import Settings
from tests.edge.house import edge_house
from tests.venues.exchange import obeying

TOKEN = "correct-horse-battery"
LOCAL = ("Host", "localhost:8000")


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        ("127.0.0.1", [LOCAL]),
        ("::1", [("Host", "[::1]:8000")]),
        ("::ffff:127.0.0.1", [LOCAL]),
        ("127.0.0.1", [("Host", "127.0.0.1:8000"), ("Origin", "http://127.0.0.1:8000")]),
    ],
)
async def test_without_a_token_programs_on_this_machine_may_control(
    client: str, headers: list[tuple[str, str]], autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """And the page that this server itself serves."""
    async with edge_house(tmp_path) as house:
        assert (await house.call("POST", "/api/ws/quick/stop", headers=headers, client=client)).status == 200


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        ("10.0.0.7", [LOCAL]),
        ("127.0.0.1", [LOCAL, ("X-Forwarded-For", "127.0.0.1")]),
        ("127.0.0.1", [LOCAL, ("Forwarded", "for=127.0.0.1")]),
        ("127.0.0.1", [LOCAL, ("Origin", "https://evil.example")]),
        ("127.0.0.1", [LOCAL, ("Origin", "null")]),
        ("127.0.0.1", [LOCAL, ("Origin", "http://localhost:8000.evil.example")]),
        ("127.0.0.1", [("Host", "evil.example:8000"), ("Origin", "http://evil.example:8000")]),
        ("127.0.0.1", [("Host", "evil.example:8000")]),
        ("127.0.0.1", [("Host", "[")]),
    ],
)
@pytest.mark.parametrize("call", [("POST", "/api/ws/quick/stop"), ("GET", "/api/logs/today")])
async def test_without_a_token_nobody_else_may(
    client: str,
    headers: list[tuple[str, str]],
    call: tuple[str, str],
    autojump_clock: trio.testing.MockClock,
    tmp_path: Path,
) -> None:
    """Other machines, proxies, foreign pages, and pages whose name was rebound to this machine."""
    async with edge_house(tmp_path) as house:
        answer = await house.call(*call, headers=headers, client=client)
        assert answer.status == 403
        assert b"KOMAS_ADMIN_TOKEN" in answer.body


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        ("", 401),
        (TOKEN, 401),
        ("Bearer ", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer café", 401),
    ],
)
async def test_with_a_token_the_token_decides(
    authorization: str, status: int, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """From anywhere, and on this machine too."""
    async with edge_house(tmp_path, Settings(admin_token=TOKEN)) as house:
        answer = await house.call(
            "POST", "/api/ws/quick/stop", headers=[LOCAL, ("Authorization", authorization)], client="10.0.0.7"
        )
        assert answer.status == status
        if status == 401:
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert TOKEN.encode() not in answer.body
        assert (await house.call("POST", "/api/ws/quick/stop")).status == 401


async def test_any_page_may_read_by_default_and_none_may_control(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """The user's React example runs on another port than the server."""
    origin = ("Origin", "http://localhost:3000")
    async with edge_house(tmp_path) as house:
        house.exchange.script(obeying)
        async with house.stream("/api/ws/sse/prices?symbols=BTCUSDT", headers=[LOCAL, origin]) as events:
            assert events.headers["access-control-allow-origin"] == "*"
        answer = await house.call("POST", "/api/ws/quick/stop", headers=[LOCAL, origin])
        assert (answer.status, "access-control-allow-origin" in answer.headers) == (403, False)


async def test_listed_pages_may_read_and_control(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """And no others may do either."""
    settings = Settings(cors_origins=("https://app.example",), admin_token=TOKEN)
    async with edge_house(tmp_path, settings) as house:
        listed, other = ("Origin", "https://app.example"), ("Origin", "https://evil.example")
        answer = await house.call("GET", "/api/ws/prices", headers=[LOCAL, listed])
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        answer = await house.call("GET", "/api/ws/prices", headers=[LOCAL, other])
        assert "access-control-allow-origin" not in answer.headers
        preflight = await house.call("OPTIONS", "/api/ws/subscribe", headers=[LOCAL, listed])
        assert preflight.status == 204
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert "Authorization" in preflight.headers["access-control-allow-headers"]
        preflight = await house.call("OPTIONS", "/api/ws/subscribe", headers=[LOCAL, other])
        assert "POST" not in preflight.headers["access-control-allow-methods"]


async def test_a_trusted_proxy_is_believed_about_addresses_and_nobody_else(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Clients are counted by the address that the proxy appended; what a client wrote itself is not believed."""
    settings = Settings(trusted_proxies=("10.0.0.1",), max_sse_per_address=1)
    target = "/api/ws/sse/prices?symbols=BTCUSDT"
    async with edge_house(tmp_path, settings) as house:
        house.exchange.script(obeying)
        one = [LOCAL, ("X-Forwarded-For", "9.9.9.9, 1.1.1.1")]
        two = [LOCAL, ("X-Forwarded-For", "9.9.9.9, 2.2.2.2")]
        async with (
            house.stream(target, headers=one, client="10.0.0.1"),
            house.stream(target, headers=two, client="10.0.0.1"),
        ):
            assert b"event: busy" in (await house.call("GET", target, headers=one, client="10.0.0.1")).body
            async with house.stream(target, headers=two, client="10.0.0.2"):
                assert b"event: busy" in (await house.call("GET", target, headers=one, client="10.0.0.2")).body


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("127.0.0.1", "192.0.2.7"),
        ("::ffff:127.0.0.1", "192.0.2.7"),  # a socket for both kinds of addresses writes IPv4 in this way
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("2001:db8::1", "2001:db8::1"),
        (None, ""),
    ],
)
def test_a_proxy_is_trusted_by_whatever_socket_it_comes(peer: str | None, address: str) -> None:
    """And nobody else is."""
    caller = Caller(peer, Headers({"X-Forwarded-For": "192.0.2.7"}))
    assert caller.address(Settings(trusted_proxies=("127.0.0.1",))) == address
