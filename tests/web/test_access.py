"""Who may change something, who may read, and what web pages may do."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace
from werkzeug.datastructures import Headers

from komas.errors import SettingError
from komas.settings import TOKEN_LENGTH, Settings
from komas.web.access import Access, Caller, admin_token_of, is_beyond_loopback, who_may_control
from komas.web.app import UNREAD_BODY_S
from komas.web.local_programs import Endpoint
from tests.venues.exchange import obeying
from tests.web.harness import ADMIN, ADMIN_TOKEN, web_harness

TOKEN = "correct-horse-battery"
LOCAL = ("Host", "localhost:8000")


CONTROL = (
    ("POST", "/api/ws/connect"),
    ("POST", "/api/ws/disconnect"),
    ("POST", "/api/ws/subscribe"),
    ("POST", "/api/ws/unsubscribe"),
    ("POST", "/api/ws/rotate"),
    ("POST", "/api/ws/quick/start-prices"),
    ("POST", "/api/ws/quick/stop"),
)
ADMINISTRATION = (
    ("GET", "/api/logs/today"),
    ("GET", "/api/logs/today/"),
    ("GET", "/debug/tasks"),
    ("POST", "/api/vip/7"),
    ("DELETE", "/api/vip/7"),
    ("GET", "/api/vip/7"),
)


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
    async with web_harness(tmp_path) as harness:
        assert (await harness.call("POST", "/api/ws/quick/stop", headers=headers, client=client)).status == 200


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        ("10.0.0.7", [LOCAL]),
        ("127.0.0.1", [LOCAL, ("X-Forwarded-For", "127.0.0.1")]),
        ("127.0.0.1", [LOCAL, ("Forwarded", "for=127.0.0.1")]),
        ("127.0.0.1", [LOCAL, ("Origin", "https://evil.example")]),
        ("127.0.0.1", [LOCAL, ("Origin", "null")]),
        ("127.0.0.1", [LOCAL, ("Origin", "http://localhost:8000.evil.example")]),
        ("127.0.0.1", [LOCAL, ("Origin", "http://localhost:8000"), ("Origin", "https://evil.example")]),
        ("127.0.0.1", [("Host", "evil.example:8000"), ("Origin", "http://evil.example:8000")]),
        ("127.0.0.1", [("Host", "evil.example:8000")]),
        ("127.0.0.1", [("Host", "[")]),
        ("127.0.0.1", [("Host", "evil@localhost")]),
        ("127.0.0.1", [("Host", "localhost/evil")]),
        ("127.0.0.1", [("Host", "localhost#.evil.example")]),
        ("127.0.0.1", [("Host", "evil.example\\@localhost")]),
        ("127.0.0.1", [("Host", "localhost:999999")]),
        ("127.0.0.1", [LOCAL, ("Sec-Fetch-Site", "cross-site")]),
        ("127.0.0.1", [LOCAL, ("Tailscale-User-Login", "x")]),
        ("127.0.0.1", [LOCAL, ("Authorization", "Bearer wrong")]),
    ],
)
@pytest.mark.parametrize("call", CONTROL)
async def test_without_a_token_nobody_else_may(
    client: str,
    headers: list[tuple[str, str]],
    call: tuple[str, str],
    autojump_clock: trio.testing.MockClock,
    tmp_path: Path,
) -> None:
    """Other machines, proxies, foreign pages, pages whose name was rebound to this machine, and a wrong token."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call(*call, headers=headers, client=client)
        assert answer.status == 401
        assert b"KOMAS_ADMIN_TOKEN" in answer.body


async def relay(_peer: Endpoint, _ours: Endpoint) -> bool:
    """A program that speaks for others."""
    await trio.lowlevel.checkpoint()
    return False


@pytest.mark.parametrize("call", CONTROL)
@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (Settings(trusted_proxies=("10.0.0.1",)), {}),
        (Settings(admin_token=TOKEN), {}),
        (Settings(), {"is_exposed": True}),
        (Settings(), {"speaks_for_itself": relay}),
    ],
)
async def test_what_closes_control_without_a_token(
    settings: Settings,
    options: dict[str, Any],
    call: tuple[str, str],
    autojump_clock: trio.testing.MockClock,
    tmp_path: Path,
) -> None:
    """A proxy that is trusted, a token that is set, a bind beyond loopback, and a program that relays."""
    async with web_harness(tmp_path, settings, **options) as harness:
        assert (await harness.call(*call, headers=[LOCAL])).status == 401
        token = settings.admin_token or ADMIN_TOKEN
        answer = await harness.call(*call, headers=[LOCAL, ("Authorization", f"Bearer {token}")])
        assert answer.status not in (401, 403)


@pytest.mark.parametrize("call", ADMINISTRATION)
async def test_vips_and_logs_always_need_the_token(
    call: tuple[str, str], autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Being on the server's own machine proves nothing."""
    async with web_harness(tmp_path) as harness:
        assert (await harness.call(*call, headers=[LOCAL])).status == 401
        assert (await harness.call(*call, headers=[LOCAL, ("Authorization", "Bearer x")])).status == 401
        answer = await harness.call(*call, headers=[LOCAL, ADMIN], body=b'{"days":1}')
        assert answer.status == 200


async def test_what_is_not_there_needs_no_token(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """404 and 405, as for everybody."""
    async with web_harness(tmp_path) as harness:
        assert (await harness.call("POST", "/api/nothing", client="10.0.0.7")).status == 404
        assert (await harness.call("PUT", "/api/ws/connect", client="10.0.0.7")).status == 405


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
    async with web_harness(tmp_path, Settings(admin_token=TOKEN)) as harness:
        answer = await harness.call(
            "POST", "/api/ws/quick/stop", headers=[LOCAL, ("Authorization", authorization)], client="10.0.0.7"
        )
        assert answer.status == status
        if status == 401:
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert TOKEN.encode() not in answer.body
        assert (await harness.call("POST", "/api/ws/quick/stop")).status == 401


def test_the_first_run_makes_an_admin_token_for_its_owner_alone(tmp_path: Path) -> None:
    """And every later one reads the same; the setting's own comes first."""
    token = admin_token_of(Settings(data_dir=tmp_path))
    assert len(token) >= TOKEN_LENGTH
    assert admin_token_of(Settings(data_dir=tmp_path)) == token
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "admin-token").stat().st_mode) == 0o600
    assert admin_token_of(Settings(data_dir=tmp_path, admin_token=TOKEN)) == TOKEN


@pytest.mark.parametrize("content", [b"", b"short", b"sixteen letters and spaces", "café-café-café-café".encode()])
def test_a_file_without_a_token_is_said(content: bytes, tmp_path: Path) -> None:
    """Not replaced, and not taken for a token that anybody can guess."""
    (tmp_path / "admin-token").write_bytes(content)
    with pytest.raises(SettingError, match="holds no token"):
        admin_token_of(Settings(data_dir=tmp_path))


def test_a_file_that_others_can_read_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A warning with the mend."""
    admin_token_of(Settings(data_dir=tmp_path))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    (tmp_path / "admin-token").chmod(0o644)
    admin_token_of(Settings(data_dir=tmp_path))
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize(
    ("settings", "is_exposed", "words"),
    [
        (Settings(), False, "open to this machine's own programs; all else needs the token in /d/admin-token"),
        (Settings(), None, "open to this machine's own programs, unless Hypercorn is bound beyond loopback; all else"),
        (Settings(), True, "control needs the token in /d/admin-token: the server is bound beyond loopback"),
        (
            Settings(trusted_proxies=("::1",)),
            False,
            "control needs the token in /d/admin-token: trusted_proxies is set",
        ),
        (Settings(bind=("unix:/k",)), False, "control needs the token in /d/admin-token: only Unix sockets are bound"),
        (Settings(bind=("unix:/k", "127.0.0.1:8000")), False, "open to this machine's own programs; all else needs"),
        (Settings(admin_token=TOKEN), False, "control needs the admin_token that is set: admin_token is set"),
    ],
)
def test_the_start_says_who_may_control(settings: Settings, is_exposed: bool | None, words: str) -> None:  # noqa: FBT001 - a table
    """In one line, without the token."""
    line = who_may_control(replace(settings, data_dir=Path("/d")), is_exposed=is_exposed)
    assert words in line
    assert TOKEN not in line


@pytest.mark.parametrize(
    ("bind", "is_beyond"),
    [
        ("127.0.0.1:8000", False),
        ("127.1.2.3:8000", False),
        ("[::1]:8000", False),
        ("localhost:8000", False),
        ("0.0.0.0:8000", True),
        ("[::]:8000", True),
        ("192.0.2.1:8000", True),
        ("komas.example:8000", True),
        ("[", True),
    ],
)
def test_which_binds_are_beyond_loopback(bind: str, is_beyond: bool) -> None:  # noqa: FBT001 - a table
    """What cannot be read counts as open."""
    assert is_beyond_loopback(bind) is is_beyond


async def test_any_page_may_read_by_default_and_none_may_control(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """The user's React example runs on another port than the server."""
    origin = ("Origin", "http://localhost:3000")
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        async with harness.stream("/api/ws/sse/prices?symbols=BTCUSDT", headers=[LOCAL, origin]) as events:
            assert events.headers["access-control-allow-origin"] == "*"
        answer = await harness.call("POST", "/api/ws/quick/stop", headers=[LOCAL, origin])
        assert (answer.status, "access-control-allow-origin" in answer.headers) == (401, False)


ASKS = ("Access-Control-Request-Method", "POST")  # what makes OPTIONS a preflight (Fetch, 3.3.3)


async def test_listed_pages_may_read_and_control(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """And no others may do either."""
    settings = Settings(cors_origins=("https://app.example",), admin_token=TOKEN)
    async with web_harness(tmp_path, settings) as harness:
        listed, other = ("Origin", "https://app.example"), ("Origin", "https://evil.example")
        answer = await harness.call("GET", "/api/ws/prices", headers=[LOCAL, listed])
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        answer = await harness.call("GET", "/api/ws/prices", headers=[LOCAL, other])
        assert "access-control-allow-origin" not in answer.headers
        preflight = await harness.call("OPTIONS", "/api/ws/subscribe", headers=[LOCAL, listed, ASKS])
        assert preflight.status == 204
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert "Authorization" in preflight.headers["access-control-allow-headers"]
        preflight = await harness.call("OPTIONS", "/api/ws/subscribe", headers=[LOCAL, other, ASKS])
        assert "access-control-allow-methods" not in preflight.headers


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("203.0.113.9:50001", "203.0.113.9:50002"),
        ("203.0.113.7", "::ffff:203.0.113.7"),
        ("2001:db8::1", "2001:db8::2"),
        ("203.0.113.7, 10.0.0.2", "203.0.113.7, 10.0.0.3"),
    ],
)
async def test_one_client_has_the_places_of_one(
    one: str, other: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """However its address is written, whatever proxies it came through; and another one, its own."""
    settings = Settings(trusted_proxies=("10.0.0.0/29",), max_sse_per_address=1)
    target = "/api/ws/sse/prices?symbols=BTCUSDT"

    def of(address: str) -> list[tuple[str, str]]:
        return [LOCAL, ("X-Forwarded-For", address)]

    async with web_harness(tmp_path, settings) as harness:
        harness.exchange.script(obeying)
        async with (
            harness.stream(target, headers=of(one), client="10.0.0.1"),
            harness.stream(target, headers=of("198.51.100.1, 10.0.0.2"), client="10.0.0.1"),
        ):
            await trio.testing.wait_all_tasks_blocked()  # both are inside
            assert harness.services.limits.statistics().present == 2
            assert b"event: busy" in (await harness.call("GET", target, headers=of(other), client="10.0.0.1")).body


async def test_an_ipv6_customer_that_calls_directly_is_one_client(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """It has 2**64 addresses to come from."""
    target = "/api/ws/sse/prices?symbols=BTCUSDT"
    async with web_harness(tmp_path, Settings(max_sse_per_address=1)) as harness:
        harness.exchange.script(obeying)
        async with (
            harness.stream(target, client="2001:db8:1:2::1"),
            harness.stream(target, client="2001:db8:1:3::1"),
        ):
            await trio.testing.wait_all_tasks_blocked()  # both are inside
            assert harness.services.limits.statistics().present == 2
            assert b"event: busy" in (await harness.call("GET", target, client="2001:db8:1:2::2")).body


async def test_a_trusted_proxy_is_believed_about_addresses_and_nobody_else(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Clients are counted by the address that the proxy appended; what a client wrote itself is not believed."""
    settings = Settings(trusted_proxies=("10.0.0.1",), max_sse_per_address=1)
    target = "/api/ws/sse/prices?symbols=BTCUSDT"
    async with web_harness(tmp_path, settings) as harness:
        harness.exchange.script(obeying)
        one = [LOCAL, ("X-Forwarded-For", "9.9.9.9, 1.1.1.1")]
        two = [LOCAL, ("X-Forwarded-For", "9.9.9.9, 2.2.2.2")]
        async with (
            harness.stream(target, headers=one, client="10.0.0.1"),
            harness.stream(target, headers=two, client="10.0.0.1"),
        ):
            assert b"event: busy" in (await harness.call("GET", target, headers=one, client="10.0.0.1")).body
            async with harness.stream(target, headers=two, client="10.0.0.2"):
                assert b"event: busy" in (await harness.call("GET", target, headers=one, client="10.0.0.2")).body


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("127.0.0.1", "192.0.2.7"),
        ("::ffff:127.0.0.1", "192.0.2.7"),  # a socket for both kinds of addresses writes IPv4 in this way
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("2001:db8::1", "2001:db8::/64"),
        (None, "192.0.2.7"),
    ],
)
def test_a_proxy_is_trusted_by_whatever_socket_it_comes(peer: str | None, address: str) -> None:
    """And nobody else is."""
    caller = Caller(None if peer is None else (peer, 1), None, Headers({"X-Forwarded-For": "192.0.2.7"}))
    assert _access(trusted_proxies=("127.0.0.1",)).address(caller) == address


async def test_a_client_that_its_proxy_names_in_two_ways_is_said(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Once a minute: a client can cause it."""
    access = _access(trusted_proxies=("127.0.0.1",))
    headers = Headers({"X-Forwarded-For": "192.0.2.7", "Forwarded": "for=6.6.6.6"})
    for _ in range(3):
        assert access.address(Caller(("127.0.0.1", 1), None, headers)) == "contradicted by 127.0.0.1"
    assert len([record for record in caplog.records if "name two clients" in record.getMessage()]) == 1


def _access(**settings: Any) -> Access:
    return Access(Settings(**settings), ADMIN_TOKEN, is_exposed=lambda: False, speaks_for_itself=relay)


@pytest.mark.parametrize(
    ("origin", "headers", "is_same"),
    [
        (None, {"Host": "komas.example"}, True),
        ("https://komas.example", {"Host": "komas.example"}, True),
        ("http://komas.example", {"Host": "komas.example"}, True),
        ("https://komas.example", {"Host": "komas.example:443"}, True),
        ("http://komas.example:443", {"Host": "komas.example:443"}, True),
        ("http://komas.example", {"Host": "komas.example:80"}, True),
        ("https://KOMAS.example", {"Host": "Komas.Example"}, True),
        ("https://komas.example:8443", {"Host": "komas.example:8443"}, True),
        ("http://[::1]:8000", {"Host": "[::1]:8000"}, True),
        ("https://komas.example:8443", {"Host": "komas.example"}, False),
        ("https://komas.example", {"Host": "komas.example:80"}, False),
        ("https://komas.example", {"Host": "other.example"}, False),
        ("null", {"Host": "komas.example"}, False),
        ("", {"Host": "komas.example"}, False),
        ("chrome-extension://komas.example", {"Host": "komas.example"}, False),
        ("https://komas.example", {"Host": ""}, False),
        ("https://komas.example", {"Host": "komas.example", "X-Forwarded-Proto": "http"}, False),
        ("https://komas.example", {"Host": "komas.example", "X-Forwarded-Proto": "https"}, True),
        ("https://komas.example", {"Host": "127.0.0.1:8000", "X-Forwarded-Host": "komas.example"}, True),
        ("https://komas.example", {"Host": "127.0.0.1", "X-Forwarded-Host": "komas.example:443"}, True),
        ("https://evil.example", {"Host": "a", "X-Forwarded-Host": "evil.example, komas.example"}, False),
        ("https://komas.example", {"Host": "a", "X-Forwarded-Host": "evil.example, komas.example"}, True),
        ("https://komas.example", {"Host": "a", "Forwarded": "for=b;host=komas.example;proto=https"}, True),
        ("https://komas.example", {"Host": "a", "Forwarded": "host=evil.example, host=komas.example"}, True),
        ("https://evil.example", {"Host": "a", "Forwarded": "host=evil.example, host=komas.example"}, False),
        ("https://komas.example", {"Host": "komas.example", "Forwarded": "proto=http"}, False),
        ("https://komas.example", {"Host": "komas.example", "Forwarded": 'proto="https'}, False),
        ("https://b.example", {"Host": "a", "X-Forwarded-Host": "b.example", "Forwarded": "host=c.example"}, False),
        ("https://c.example", {"Host": "a", "X-Forwarded-Host": "b.example", "Forwarded": "host=c.example"}, False),
        ("https://b.example", {"Host": "a", "X-Forwarded-Host": "b.example", "Forwarded": "host=B.example"}, True),
    ],
)
def test_which_page_is_our_own_behind_a_trusted_proxy(
    origin: str | None,
    headers: dict[str, str],
    is_same: bool,  # noqa: FBT001 - a table
) -> None:
    """By its scheme, name and port as the client wrote them; default ports are none."""
    given = Headers({**headers, **({} if origin is None else {"Origin": origin})})
    assert _access(trusted_proxies=("127.0.0.1",)).is_same_origin(Caller(("127.0.0.1", 1), None, given)) is is_same


def test_who_is_not_trusted_is_not_believed_about_hosts() -> None:
    """Its client may have written the header."""
    headers = Headers({"Host": "a", "X-Forwarded-Host": "evil.example", "Origin": "https://evil.example"})
    assert not _access().is_same_origin(Caller(("127.0.0.1", 1), None, headers))


async def test_a_page_that_is_not_listed_is_counted_and_logged_once_a_minute(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """With its origin and the setting; a thousand of them fill no log."""
    access = _access(cors_origins=("https://app.example",))
    caller = Caller(("127.0.0.1", 1), None, Headers({"Host": "a", "Origin": "https://evil.example"}))
    for _ in range(1000):
        assert not access.lets_page_in(caller)
    assert access.statistics().origins_refused == 1000
    assert caplog.text.count("page refused: its origin 'https://evil.example' is not listed in cors_origins") == 1
    await trio.sleep(60)
    assert not access.lets_page_in(caller)
    assert vars(caplog.records[-1])["not_logged"] == 999


@pytest.mark.parametrize(("comes_after_s", "answered_after_s"), [(0.2, 0.2), (60.0, UNREAD_BODY_S)])
async def test_a_refusal_takes_the_body_first(
    comes_after_s: float, answered_after_s: float, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """A proxy that is still sending it may lose the answer; it has a second."""
    answers: list[tuple[float, object]] = []

    async def receive() -> dict[str, object]:
        await trio.sleep(comes_after_s)
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        await trio.lowlevel.checkpoint()
        answers.append((trio.current_time(), message.get("status")))

    scope = {
        "type": "http", "method": "POST", "scheme": "http", "path": "/api/vip/1", "raw_path": b"/api/vip/1",
        "asgi": {}, "http_version": "1.1", "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
        "server": ("localhost", 80), "headers": [(b"host", b"localhost"), (b"content-length", b"2")],
        "state": {}, "extensions": {},
    }  # fmt: skip
    async with web_harness(tmp_path) as harness:
        began = trio.current_time()
        app: Any = harness.app
        await app(scope, receive, send)
    answered_at, status = answers[0]
    assert answered_at == pytest.approx(began + answered_after_s)
    assert status == 401
