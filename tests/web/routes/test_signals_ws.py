"""``/ws/signals``: the handshake is always accepted, a refusal is a close frame."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import trio
import trio.testing

from komas.errors import Closing
from komas.model.signals import SignalInsert
from komas.settings import Settings
from tests.web.harness import WebHarness, web_harness

HOST = ("Host", "komas.example:8000")
UNAUTHORIZED = (1008, "Unauthorized")


async def _ready(harness: WebHarness) -> str:
    await harness.services.signals.service.ready.wait()
    return harness.service.token()


async def test_a_token_comes_by_query_header_or_subprotocol(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Our subprotocol is chosen where it was offered, and no other."""
    async with web_harness(tmp_path) as harness:
        token = await _ready(harness)
        by_query = await harness.socket(f"/ws/signals?token={token}", '{"type":"ping"}')
        by_header = await harness.socket("/ws/signals", headers=[HOST, ("Authorization", f"Bearer {token}")])
        by_subprotocol = await harness.socket("/ws/signals", subprotocols=["komas.signals", f"bearer.{token}"])
        by_other = await harness.socket(f"/ws/signals?token={token}", subprotocols=["other"])
        assert [m["type"] for m in by_query.heard] == ["connected", "pong"]
        assert [m["type"] for visit in (by_header, by_subprotocol, by_other) for m in visit.heard] == ["connected"] * 3
        assert [visit.subprotocol for visit in (by_query, by_subprotocol, by_other)] == [None, "komas.signals", None]


async def test_an_unknown_parameter_is_ignored_and_named(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """A page that was refused for one would give up; who misspelt since_id hears that nothing is replayed."""
    async with web_harness(tmp_path) as harness:
        token = await _ready(harness)
        visit = await harness.socket(f"/ws/signals?token={token}&sinceid=1&_=123&positions=0")
        assert [(message["type"], message["ignored"]) for message in visit.heard] == [("connected", ["sinceid", "_"])]
        plain = await harness.socket(f"/ws/signals?token={token}")
        assert "ignored" not in plain.heard[0]


@pytest.mark.parametrize(
    "target", ["/ws/signals", "/ws/signals?token=", "/ws/signals?token=garbage", "/ws/signals?t=x"]
)
async def test_no_good_token_is_1008(target: str, autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Accepted first."""
    async with web_harness(tmp_path) as harness:
        await _ready(harness)
        visit = await harness.socket(target)
        assert (visit.status, visit.closed, visit.heard) == (None, UNAUTHORIZED, [])


@pytest.mark.parametrize(
    ("origin", "is_ours"),
    [
        ("http://komas.example:8000", True),
        ("https://komas.example:8000", True),
        ("https://app.example", True),
        ("https://evil.example", False),
        ("null", False),
        ("", False),
        ("http://komas.example", False),
        ("http://komas.example:80000", False),
        ("http://komas.example:8000.evil.example", False),
        ("http://evil.example/?http://komas.example:8000", False),
        ("http://komas.example:8000@evil.example", False),
        ("ws://komas.example:8000", False),
        ("*", False),
    ],
)
async def test_foreign_pages_are_kept_out(
    origin: str, autojump_clock: trio.testing.MockClock, tmp_path: Path, *, is_ours: bool
) -> None:
    """With a list: our own, and those on it."""
    async with web_harness(tmp_path, Settings(cors_origins=("https://app.example",))) as harness:
        token = await _ready(harness)
        visit = await harness.socket(f"/ws/signals?token={token}", headers=[HOST, ("Origin", origin)])
        assert visit.closed == (None if is_ours else (1008, "Origin not allowed"))
        assert len(visit.heard) == is_ours
        metrics = (await harness.call("GET", "/metrics")).body
        assert b"komas_signal_origins_refused_total %d.0" % (not is_ours) in metrics


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://127.0.0.1:8000", "null", "capacitor://localhost", "nonsense", ""]
)
async def test_by_default_every_page_may_open_a_signal_socket(
    origin: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """The user's own React hook runs from another port; the token is the proof, and no cookie is involved."""
    async with web_harness(tmp_path) as harness:
        token = await _ready(harness)
        visit = await harness.socket(f"/ws/signals?token={token}", headers=[("Host", "localhost"), ("Origin", origin)])
        assert (visit.closed, len(visit.heard)) == (None, 1)
        visit = await harness.socket("/ws/signals?token=x", headers=[("Host", "localhost"), ("Origin", origin)])
        assert visit.closed == UNAUTHORIZED


@pytest.mark.parametrize("since", ["-1", "x", "1.0", "", "9" * 30, "٣", "1e3"])
async def test_a_wrong_since_id_is_said(since: str, autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Not taken for nought, nor for none."""
    async with web_harness(tmp_path) as harness:
        token = await _ready(harness)
        for name in ("since_id", "since"):
            visit = await harness.socket(f"/ws/signals?token={token}&{name}={since}")
            assert (visit.closed, visit.heard) == ((1008, "Invalid since_id"), [])


async def test_since_id_replays(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """A number beyond the last replays nothing; positions come to those who ask."""
    async with web_harness(tmp_path) as harness:
        token = await _ready(harness)
        for number in range(3):
            harness.service.database.publish(SignalInsert("mexc_dex", {"n": number}, "p"), 0)
        await trio.sleep(1)
        ids = {
            since: [m["data"]["id"] for m in (await harness.socket(f"/ws/signals?token={token}&{since}")).heard[1:]]
            for since in ("since_id=0", "since_id=2", "since_id=3", f"since_id={2**53}", "since=1", "")
        }
        assert ids == {
            "since_id=0": [1, 2, 3],
            "since_id=2": [3],
            "since_id=3": [],
            f"since_id={2**53}": [],
            "since=1": [2, 3],
            "": [],
        }
        beyond = await harness.socket(f"/ws/signals?token={token}&since=4")
        assert beyond.closed == (1008, "Invalid since_id")
        placed = await harness.socket(f"/ws/signals?token={token}&since_id=2&positions=1")
        assert placed.heard[-1]["position"] == 3


async def test_sockets_are_limited_for_each_address_and_in_all(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """From the handshake on, whatever token they bring."""
    settings = Settings(max_sockets_per_address=2, max_sockets=3)
    async with web_harness(tmp_path, settings) as harness, trio.open_nursery() as nursery:
        token = await _ready(harness)

        async def stay(address: str) -> None:
            await harness.socket(f"/ws/signals?token={token}", client=address, for_s=60)

        for address in ("1.1.1.1", "1.1.1.1", "2.2.2.2"):
            nursery.start_soon(stay, address)
        await trio.sleep(1)
        for address in ("1.1.1.1", "3.3.3.3"):
            visit = await harness.socket("/ws/signals?token=x", client=address)
            assert visit.closed == (1013, "Try again later")
        await trio.sleep(60)
        assert (await harness.socket("/ws/signals?token=x", client="1.1.1.1")).closed == UNAUTHORIZED
        assert harness.services.signals.registry.statistics().sockets == 0


async def test_a_server_that_drains_says_so(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """1001 before anything is checked."""
    async with web_harness(tmp_path) as harness:
        await _ready(harness)
        harness.services.draining.set()
        assert (await harness.socket("/ws/signals")).closed == (1001, "Server shutting down")


async def test_another_path_is_no_socket(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """404, before the handshake."""
    async with web_harness(tmp_path) as harness:
        assert (await harness.socket("/ws/other")).status == 404


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("signal_type=other", "signal_type is one of"),
        ("signal_type=mexc_dex,MEXC_DEX", "signal_type is one of"),
        ("signal_type=", "signal_type names at least one"),
        ("coin_name=", "coin_name names at least one"),
        ("coin_name=%20,,%20", "coin_name names at least one"),
        ("coin_name=BTC,a%00b", "coin_name is 1 to 64"),
        ("coin_name=" + "x" * 65, "coin_name is 1 to 64"),
        ("coin_name=%EF%BF%BD", "coin_name is 1 to 64"),
        ("coin_name=" + ",".join(["BTC"] * 10_000), "10000 names in coin_name; at most 200"),
        ("coin_name=BTC&coin_name=ETH", "coin_name is given more than once"),
        ("signal_type=mexc_dex&signal_type=funding_rate", "signal_type is given more than once"),
    ],
)
async def test_a_filter_that_cannot_be_is_said(
    query: str, word: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """With the field's name; not taken for none, which would send everything."""
    async with web_harness(tmp_path) as harness:
        token = await _ready(harness)
        visit = await harness.socket(f"/ws/signals?token={token}&{query}")
        assert visit.heard == []
        assert visit.closed is not None
        code, reason = visit.closed
        assert code == Closing.WRONG_REQUEST.code
        assert str(reason).startswith(word)
        assert len(str(reason).encode()) <= 123


async def test_a_filter_leaves_the_rest_out(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """By type, by coin, by both; names in any case and way of writing, blanks around them, each once."""
    async with web_harness(tmp_path) as harness:
        token = await _ready(harness)
        coins = ("BTC", "eth", "\u00c9", "BTC")
        for number, coin in enumerate(coins):
            kind = "funding_rate" if number == 3 else "mexc_dex"
            harness.service.database.publish(SignalInsert(kind, {"coin_name": coin}, "p"), 0)
        await trio.sleep(1)
        queries = {
            "coin_name=btc": [1, 4],
            "coin_name=btc%20,%20ETH,,eth": [1, 2, 4],
            "coin_name=e%CC%81": [3],
            "coin_name=NB": [],
            "signal_type=funding_rate": [4],
            "signal_type=mexc_dex,%20funding_rate": [1, 2, 3, 4],
            "signal_type=mexc_dex&coin_name=BTC": [1],
        }
        for query, ids in queries.items():
            visit = await harness.socket(f"/ws/signals?token={token}&since_id=0&{query}")
            assert [message["data"]["id"] for message in visit.heard[1:]] == ids, query
            assert "ignored" not in visit.heard[0]
            headers = [("Host", "localhost"), ("Authorization", f"Bearer {token}")]
            answer = await harness.call("GET", f"/api/signals?{query}", headers=headers)
            assert [signal["id"] for signal in json.loads(answer.body)["signals"]] == ids, query


def test_the_documents_have_every_close_code() -> None:
    """With its reason, and whether to come back."""
    readme = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text("utf-8")
    rows = re.findall(r"^\| ([\d, ]+) \| (?:`(.*?)`)? ?\|.*\| (.*?) \|$", readme, re.MULTILINE)
    table = {(int(code), reason): comes_back for codes, reason, comes_back in rows for code in codes.split(",")}
    assert table.keys() == {(closing.code, closing.reason) for closing in Closing}
    for closing in Closing:
        assert table[closing.code, closing.reason].startswith("yes") == closing.is_worth_a_retry
