"""The page against the real server: its digits, its connections, restarts, and what an administrator does."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import needs_chromium
from tests.e2e.page_browser import PATIENCE_MS, chromium, playwright, showing_page, showing_tabs
from tests.e2e.processes import CAPTURE, PATIENCE_S, Process, Server, running, serving, simulating, token_for, wait_for
from tests.e2e.proxies import nginx_of_ours, proxying

pytestmark = needs_chromium
__all__ = ["chromium", "playwright"]  # fixtures

GROUP = "\u202f"  # between thousands
MINUS = "\u2212"
NONE = "\u2013"
TABS = 8
LONG_MS = 60_000  # for what a browser that waits does in its own time
TICKER, BOOK = "btcusdt@ticker", "btcusdt@depth@100ms"

ROWS = """() => [...document.querySelectorAll(".w-row[data-symbol]")].map(({ dataset, cells }) =>
  [dataset.symbol, ...[cells.px, cells.pc, cells.high, cells.low].map(({ textContent }) => textContent)])"""

LEVELS = """() => ["bids", "asks"].map((side) => [...document.querySelectorAll(`k-book .${side} .row`)].map(
  ({ cells }) => [cells.price.textContent, cells.size.textContent]))"""

TRADES = """() => [...document.querySelectorAll("k-tape [data-is=rows] .row:not(.note)")].map(
  ({ parts }) => [parts.sign.textContent.trim(), parts.text.data, parts.size.textContent])"""

CANDLES = """() => {
  const { byTime } = document.querySelector("k-chart").candles;
  return [...byTime.values()].map(({ timestamp, open, high, low, close, volume, is_closed }) =>
    [timestamp, open, high, low, close, volume, is_closed]);
}"""

DRAWN = """() => {
  const { bars, volumes } = document.querySelector("k-chart");
  const [bar, volume] = [bars.data().at(-1), volumes.data().at(-1)];
  return bar && volume && [1_000 * bar.time, bar.open, bar.high, bar.low, bar.close, volume.value];
}"""

HIDE = """(state) => {
  Object.defineProperty(document, "visibilityState", { configurable: true, get: () => state });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def exact(text: str) -> Any:
    """JSON; its numbers stay text, with every digit."""
    return json.loads(text, parse_float=str, parse_int=str)


def shown(number: str, tick: str) -> str:
    """As the page is to show it: zeros beyond the tick's places are cut, thousands of long numbers set apart."""
    whole, _, fraction = number.partition(".")
    places = len(tick.rstrip("0").partition(".")[2])
    cut = fraction[:places] + fraction[places:].rstrip("0")
    sign, digits = (MINUS, whole[1:]) if whole.startswith("-") else ("", whole)
    grouped = f"{int(digits):,}".replace(",", GROUP) if len(digits) > 4 else digits
    return sign + grouped + (f".{cut}" if cut else "")


def percent(number: str) -> str:
    """As it came, with a sign."""
    sign = "+" if Decimal(number) > 0 else ""
    return f"{sign}{number.replace('-', MINUS)}{GROUP}%"


class Told:
    """What the server tells another reader of the same streams, from before the page is opened."""

    def __init__(self, curl: Process) -> None:
        self._curl = curl
        self._read = 0
        self._told: dict[str, list[Any]] = {}

    def of(self, stream: str) -> list[Any]:
        """All of a stream so far."""
        lines = self._curl.output[self._read :]
        self._read += len(lines)
        for line in lines:
            if line.startswith('data: {"stream":') and '"data":' in line:
                event = exact(line.removeprefix("data: "))
                self._told.setdefault(event["stream"], []).append(event["data"])
        return self._told.get(stream, [])


@contextmanager
def listening(server: Server, *streams: str) -> Iterator[Told]:
    """Another reader of these streams."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    with running(["curl", "-sN", f"{server.url}/api/ws/sse/stream?streams={'/'.join(streams)}"]) as curl:
        told = Told(curl)
        wait_for(lambda: told.of(streams[0]), streams[0])
        yield told


@pytest.fixture(scope="module", params=["demo", "replay"])
def market(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo, and the replayed capture."""
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as stack:
        options = ["--demo"]
        if request.param == "replay":
            if not CAPTURE.is_file():
                pytest.skip(f"the capture {CAPTURE} is not here")
            exchange = stack.enter_context(simulating("--replay", str(CAPTURE), "--loop"))
            options = ["--upstream", exchange.ws_url, "--default-symbols", "BTCUSDT"]
        yield stack.enter_context(serving(folder, *options))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A demo that no test but those on connections reads."""
    with serving(tmp_path_factory.mktemp("gateway"), "--demo") as server:
        yield server


def ask(server: Server, path: str) -> Any:
    """The server's JSON, digit by digit."""
    answer = server.http.get(path)
    assert answer.status_code == 200, answer.text
    return exact(answer.text)


def symbols_of(server: Server) -> dict[str, Any]:
    """What the server says of each of its symbols."""
    return {row["symbol"]: row for row in ask(server, "/api/ws/symbols?limit=50&market=spot")["symbols"]}


def settle(condition: Callable[[], object], what: str, page: Page) -> None:
    """Look until it is so; the page goes on meanwhile."""
    for _ in range(int(PATIENCE_S * 1000 / 50)):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {what}")


# ---- digits


def test_prices_are_the_servers_to_the_last_digit(chromium: Browser, market: Server) -> None:
    """Each row at once: price, change, high and low of one and the same ticker, as the server told it to others."""
    symbols = symbols_of(market)
    streams = [f"{symbol.lower()}@ticker" for symbol in symbols if symbol.isascii()]  # the busiest first
    with listening(market, *streams) as told, showing_page(chromium, f"{market.url}/") as page:

        def is_told(symbol: str, *cells: str) -> bool:
            tick = symbols[symbol]["tick_size"]
            return list(cells) in [
                [shown(row["price"], tick), percent(row["price_change_percent"])]
                + [shown(row[name], tick) for name in ("high", "low")]
                for row in told.of(f"{symbol.lower()}@ticker")
            ]

        def are_told() -> bool:
            rows = [row for row in page.evaluate(ROWS) if f"{row[0].lower()}@ticker" in streams]
            # Their price is of their history: nothing else is known before the next trade.
            quiet = [row for row in rows if row[2] == NONE and not told.of(f"{row[0].lower()}@ticker")]
            return len(rows) == len(streams) > len(quiet) and all(row in quiet or is_told(*row) for row in rows)

        settle(are_told, f"rows as the server's: {page.evaluate(ROWS)}", page)
        settle(
            lambda: (
                page.locator("k-chart .last").text_content()
                in [shown(row["price"], symbols["BTCUSDT"]["tick_size"]) for row in told.of(TICKER)]
            ),
            "the large price",
            page,
        )
        settle(
            lambda: (
                (page.locator("[data-symbol=BTCUSDT] .px").text_content() or "").replace(GROUP, "").rstrip("0")
                == ask(market, "/api/ws/prices?symbols=BTCUSDT")["prices"]["BTCUSDT"]["price"].rstrip("0")
            ),
            "the price of /api/ws/prices",
            page,
        )


def test_the_book_is_the_servers(chromium: Browser, market: Server) -> None:
    """All levels of both sides are those of one book that the server told, prices and sizes to the last digit."""
    known = symbols_of(market)["BTCUSDT"]
    with listening(market, BOOK) as told, showing_page(chromium, f"{market.url}/") as page:
        expect(page.locator("k-book .bids .row").first).to_be_visible(timeout=LONG_MS)
        checked = 0

        def levels(book: Any, side: str, count: int) -> list[list[str]]:
            return [
                [shown(price, known["tick_size"]), shown(size, known["step_size"])]
                for price, size in book[side][:count]
            ]

        def is_told() -> bool:
            bids, asks = page.evaluate(LEVELS)
            return bool(bids and asks) and any(
                levels(book, "bids", len(bids)) == bids and levels(book, "asks", len(asks)) == asks
                for book in told.of(BOOK)[-100:]
            )

        for _ in range(5):
            settle(is_told, "a book that the server told", page)
            checked += 1
        assert checked == 5


def test_trades_are_the_servers(chromium: Browser, market: Server) -> None:
    """Those on the tape are consecutive trades that the server told: side, price, size."""
    known = symbols_of(market)["BTCUSDT"]
    with listening(market, "btcusdt@trade") as told, showing_page(chromium, f"{market.url}/") as page:

        def is_told() -> bool:
            rows = page.evaluate(TRADES)[:10]
            all_told = [
                [
                    "▼" if row["is_buyer_maker"] else "▲",
                    shown(row["price"], known["tick_size"]),
                    shown(row["quantity"], known["step_size"]),
                ]
                for row in told.of("btcusdt@trade")
            ]
            return len(rows) == 10 and any(all_told[at : at + 10] == rows[::-1] for at in range(len(all_told)))

        settle(is_told, "ten trades in a row that the server told", page)


@pytest.mark.parametrize("interval", ["1s", "1m"])
def test_candles_are_those_of_klines(chromium: Browser, market: Server, interval: str) -> None:
    """Every closed candle that both have, digit by digit; the last that is drawn is the last that came."""
    stream = f"btcusdt@kline_{interval}"
    place = f"{market.url}/#market/BTCUSDT/{interval}"
    with listening(market, stream) as told, showing_page(chromium, place) as page:

        def last_is_told() -> bool:
            drawn = page.evaluate(DRAWN)
            names = ("timestamp", "open", "high", "low", "close", "volume")
            return drawn in [[float(row[name]) for name in names] for row in told.of(stream)]

        settle(last_is_told, "the last candle that was told is drawn", page)
        ours = {row[0]: row[1:-1] for row in page.evaluate(CANDLES) if row[-1]}
        theirs = {
            row["timestamp"]: [row[name] for name in ("open", "high", "low", "close", "volume")]
            for row in ask(market, f"/api/ws/klines?symbol=BTCUSDT&interval={interval}&limit=1000")["candles"]
            if row["is_closed"]
        }
        both = ours.keys() & theirs.keys()
        assert {time: ours[time] for time in both} == {time: theirs[time] for time in both}
        assert len(both) > 2 or interval == "1m"  # a replay begins with its first minute


def test_a_market_that_stands_still_is_shown_as_it_stands(chromium: Browser, tmp_path: Path) -> None:
    """The last candle is that of ``/api/ws/klines``, the book that of ``/api/ws/depth``, when nothing comes."""
    with simulating() as exchange, serving(tmp_path, "--upstream", exchange.ws_url) as server:
        known = symbols_of(server)["BTCUSDT"]
        with showing_page(chromium, f"{server.url}/") as page:
            expect(page.locator("k-book .bids .row").first).to_be_visible(timeout=LONG_MS)
            exchange.fault(fault="status", symbol="BTCUSDT", status="HALT")

            def is_the_same() -> bool:
                last = ask(server, "/api/ws/klines?symbol=BTCUSDT&interval=1m&limit=1")["candles"][-1]
                names = ("timestamp", "open", "high", "low", "close", "volume")
                return bool(page.evaluate(DRAWN) == [float(last[name]) for name in names])

            def book_is_the_same() -> bool:
                book = ask(server, "/api/ws/depth?symbol=BTCUSDT&limit=20")
                bids, asks = page.evaluate(LEVELS)
                return bool(bids and asks) and all(
                    [
                        [shown(price, known["tick_size"]), shown(size, known["step_size"])]
                        for price, size in book[side][: len(rows)]
                    ]
                    == rows[: len(book[side])]
                    for side, rows in (("bids", bids), ("asks", asks))
                )

            settle(book_is_the_same, "the book of /api/ws/depth", page)
            settle(is_the_same, "the last candle of /api/ws/klines", page)


# ---- connections


def test_eight_tabs_share_one_connection(chromium: Browser, gateway: Server) -> None:
    """Each shows prices, each closed one frees what only it showed; with the last the server has nobody left."""
    wait_for(lambda: gateway.status()["subscribers"] == 0, "nobody")
    with showing_tabs(chromium, f"{gateway.url}/") as tabs:
        pages = [tabs.open(f"#market/{symbol}/1m") for symbol in ["BTCUSDT", "ETHUSDT"] * (TABS // 2)]
        for page in pages:
            expect(page.locator("k-chart .last")).to_have_text(re.compile(r"\d"), timeout=LONG_MS)
            expect(page.locator("k-book .bids .row").first).to_be_visible(timeout=LONG_MS)
        assert gateway.status()["subscribers"] == 1
        pages[0].locator(".health").click()
        expect(pages[0].locator("#health-pop")).to_contain_text("7, same connection", timeout=PATIENCE_MS)
        readers = gateway.http.get("/api/ws/streams").json()["streams"]
        assert {row["stream"]: row["subscribers"] for row in readers}["ethusdt@depth@100ms"] == 1
        for page in pages[1::2]:
            page.close()
        settle(lambda: readers_of(gateway, "ethusdt@depth@100ms") == 0, "the end of what they showed", pages[0])
        assert readers_of(gateway, BOOK) == 1
        pages[0].close()
        pages[2].bring_to_front()
        expect(pages[2].locator("[data-symbol=BTCUSDT] .px")).to_have_text(re.compile(r"\d"))
        assert gateway.status()["subscribers"] == 1
        for page in (pages[4], pages[6], pages[2]):
            page.close()
        wait_for(lambda: gateway.status()["subscribers"] == 0, "nobody again")


def readers_of(server: Server, stream: str) -> int:
    """How many read a stream."""
    rows = server.http.get("/api/ws/streams").json()["streams"]
    return sum(row["subscribers"] for row in rows if row["stream"] == stream)


def test_a_hidden_tab_pauses(chromium: Browser, gateway: Server) -> None:
    """What only it shows is let go after a while, with the last tab the connection; seen, it is live again."""
    wait_for(lambda: gateway.status()["subscribers"] == 0, "nobody")
    with showing_tabs(chromium, f"{gateway.url}/") as tabs:
        seen, hidden = tabs.open("#market/BTCUSDT/1m"), tabs.open("#market/ETHUSDT/1m")
        expect(hidden.locator("k-book .bids .row").first).to_be_visible(timeout=LONG_MS)
        hidden.evaluate(HIDE, "hidden")
        settle(lambda: readers_of(gateway, "ethusdt@depth@100ms") == 0, "the hidden tab's book is let go", seen)
        assert readers_of(gateway, BOOK) == 1
        seen.evaluate(HIDE, "hidden")
        settle(lambda: gateway.status()["subscribers"] == 0, "nobody", seen)
        hidden.evaluate(HIDE, "visible")
        settle(lambda: readers_of(gateway, "ethusdt@depth@100ms") == 1, "its book again", hidden)
        expect(hidden.locator("k-book .bids .row").first).to_be_visible(timeout=LONG_MS)
        before = hidden.locator("k-book").inner_text()
        settle(lambda: hidden.locator("k-book").inner_text() != before, "a book that moves", hidden)


@pytest.mark.parametrize("proxy", [None, nginx_of_ours], ids=["directly", "nginx"])
def test_the_page_outlives_a_restart(chromium: Browser, tmp_path: Path, proxy: Any) -> None:
    """Away, it says so and hides its book; back, prices move, and every candle and trade is there without a hole."""
    options = ("--demo", "--trusted-proxies", "127.0.0.1")
    with ExitStack() as stack:
        server = stack.enter_context(serving(tmp_path / "data", *options))
        port = stack.enter_context(proxying(proxy, tmp_path / "proxy", server.port)) if proxy else server.port
        page = stack.enter_context(showing_page(chromium, f"http://127.0.0.1:{port}/", faults=True))
        expect(page.locator("k-book .bids .row").first).to_be_visible(timeout=LONG_MS)
        os.kill(server.process.pid, signal.SIGKILL)
        expect(page.locator("#banner")).to_be_visible(timeout=LONG_MS)
        expect(page.locator("k-book .row")).to_have_count(0)
        stack.enter_context(serving(tmp_path / "data", *options, "--bind", f"127.0.0.1:{server.port}"))
        expect(page.locator("#banner")).to_be_hidden(timeout=LONG_MS)
        expect(page.locator(".health b")).to_have_text("Live", timeout=LONG_MS)
        expect(page.locator("k-book .bids .row").first).to_be_visible(timeout=LONG_MS)
        before = page.locator("k-book").inner_text()
        settle(lambda: page.locator("k-book").inner_text() != before, "a book that moves", page)
        times = [int(row[0]) for row in page.evaluate(CANDLES)]
        assert {later - earlier for earlier, later in pairwise(times)} == {60_000}


# ---- an administrator


def test_an_administrator_of_the_real_server(chromium: Browser, tmp_path: Path) -> None:
    """Grants, publishes, updates, sees and disconnects a VIP, revokes, and reads today's log."""
    with simulating() as exchange, serving(tmp_path, "--upstream", exchange.ws_url) as server:
        user = token_for(tmp_path)
        with showing_page(chromium, f"{server.url}/#admin", tokens={"admin": server.admin_token()}) as admin:
            admin.locator(".vip [name=user]").fill("123")
            admin.get_by_role("button", name="Grant").click()
            expect(admin.locator(".vip [role=status]")).to_contain_text("123: until", timeout=PATIENCE_MS)
            with showing_page(chromium, f"{server.url}/#signals", tokens={"signals": user}) as vip:
                row = vip.locator("k-signals tbody tr", has_text="NB")
                _publish(admin, spread="8.8400", more='{"mexc_spot_price": 0.0418700}')
                expect(row).to_contain_text("8.84", timeout=PATIENCE_MS)
                expect(row).to_contain_text("0.04187")
                assert b"8.8400" in _signals(server, user)
                assert b"0.0418700" in _signals(server, user)
                admin.locator("[name=spread]").fill("12345678901234567.890")
                admin.get_by_role("button", name=re.compile("^Update")).click()
                expect(row).to_contain_text("12345678901234567.890", timeout=PATIENCE_MS)
                _disconnect(admin)
                expect(vip.locator("k-access .say")).to_contain_text(
                    "1008: an administrator disconnected you", timeout=PATIENCE_MS
                )
                vip.get_by_role("button", name="Connect again").click()
                expect(vip.locator("k-access .end b")).to_have_text("Live", timeout=PATIENCE_MS)
                admin.get_by_role("button", name="Revoke and disconnect").click()
                admin.locator("dialog[open] .danger").click()
                expect(vip.locator("k-access .say")).to_contain_text("1008: VIP ended", timeout=PATIENCE_MS)
                expect(admin.locator(".vip [role=status]")).to_contain_text("123 revoked")
                expect(admin.locator(".log pre")).to_contain_text("INFO    connected url=", timeout=PATIENCE_MS)


def _publish(admin: Page, spread: str, more: str) -> None:
    admin.locator("[name=coin_name]").fill("NB")
    admin.locator("[name=spread]").fill(spread)
    admin.locator("[name=data]").fill(more)
    admin.locator(".publish .primary").click()
    expect(admin.locator("#toast")).to_contain_text("published", timeout=PATIENCE_MS)


def _disconnect(admin: Page) -> None:
    row = admin.locator(".who tbody tr", has_text="123")
    row.get_by_role("button").click(timeout=PATIENCE_MS)
    admin.locator("dialog[open] .danger").click()
    expect(admin.locator("#toast")).to_contain_text("123", timeout=PATIENCE_MS)


def _signals(server: Server, token: str) -> bytes:
    return server.http.get("/api/signals", headers={"Authorization": f"Bearer {token}"}).content
