"""Who may control the double: programs, and no web page of anywhere."""

from __future__ import annotations

import msgspec
import pytest
import trio.testing

from komas.simulator.control_access import why_refused

from .peer import opened


@pytest.mark.parametrize(
    ("bound_host", "host"),
    [
        ("127.0.0.1", "127.0.0.1:9443"),
        ("127.0.0.1", "localhost"),
        ("127.0.0.1", "LOCALHOST:9443"),
        ("127.0.0.1", "[::1]:9443"),
        ("127.0.0.1", "sim.localhost:9443"),
        ("localhost", "127.1.2.3:9443"),
        ("::1", "[::1]:9443"),
        ("::1", "[::ffff:127.0.0.1]:9443"),
        ("double.example", "double.example:9443"),
        ("0.0.0.0", "10.0.0.7:9443"),
        ("0.0.0.0", "simulator:9443"),
        ("::", "[2001:db8::1]:9443"),
        ("10.0.0.7", "localhost:9443"),
    ],
)
def test_programs_call_it_by_these_names(bound_host: str, host: str) -> None:
    """Loopback, the host of --bind; beyond loopback addresses, and the names that containers have."""
    assert why_refused({"host": host}, bound_host) is None


@pytest.mark.parametrize(
    ("bound_host", "host"),
    [
        ("127.0.0.1", "attacker.example:9443"),
        ("127.0.0.1", "127.0.0.1.attacker.example"),
        ("127.0.0.1", "localhost.attacker.example"),
        ("127.0.0.1", "notlocalhost"),
        ("127.0.0.1", "10.0.0.7:9443"),
        ("127.0.0.1", "127.0.0.1:9443@attacker.example"),
        ("127.0.0.1", ""),
        ("::1", "[::2]:9443"),
        ("0.0.0.0", "attacker.example:9443"),
        ("double.example", "attacker.example:9443"),
    ],
)
def test_a_page_that_was_rebound_is_refused(bound_host: str, host: str) -> None:
    """Its name leads to this machine, and it sends that name."""
    reason = why_refused({"host": host}, bound_host)
    assert reason is not None
    assert repr(host) in reason


@pytest.mark.parametrize(
    ("headers", "is_let_in"),
    [
        ({"origin": "http://localhost:9443"}, True),
        ({"origin": "http://LOCALHOST:9443", "sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": "https://attacker.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://localhost:8000"}, False),
        ({"origin": "https://localhost:9443"}, False),
        ({"origin": "http://localhost:9443", "sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
    ],
)
def test_a_page_of_another_origin_is_refused(*, headers: dict[str, str], is_let_in: bool) -> None:
    """Every browser says which page asks."""
    assert (why_refused({"host": "localhost:9443", **headers}, "127.0.0.1") is None) is is_let_in


def test_the_port_that_browsers_leave_out() -> None:
    """A page on port 80 is its own."""
    assert why_refused({"host": "localhost:80", "origin": "http://localhost"}, "127.0.0.1") is None
    assert why_refused({"host": "localhost", "origin": "http://localhost"}, "127.0.0.1") is None


@pytest.mark.parametrize(
    "headers", ["Origin: https://attacker.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n"]
)
async def test_a_page_controls_nothing(headers: str, autojump_clock: trio.testing.MockClock) -> None:
    """It could cut every connection, by a simple request that asks nobody before; prices it may read."""
    async with opened() as world:
        for method, target in (("GET", "/sim/state"), ("POST", "/sim/faults"), ("DELETE", "/sim/faults")):
            status, answer, _ = await world.call(method, target, b'{"fault": "abort"}', headers)
            assert status == 403
            assert "other origins" in answer["msg"]
        assert (await world.call("GET", "/api/v3/ping", headers=headers))[0] == 200


async def test_market_data_is_there_under_any_name(autojump_clock: trio.testing.MockClock) -> None:
    """Control is not, and the host of --bind is what counts."""
    async with opened() as world:
        api = world.exchange.http_api
        api.options = msgspec.structs.replace(world.exchange.options, bind="double.example:0")
        for host, status in (("double.example", b"200"), ("attacker.example", b"403")):
            for target, expected in (("/api/v3/ping", b"200"), ("/sim/state", status)):
                stream = await world.line()
                await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 " + expected)
