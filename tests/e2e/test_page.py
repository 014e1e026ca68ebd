"""The page in a real Chromium, with made-up data: what it shows, in which words, for whom, and what it never does."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from komas.web.routes.pages import STATIC
from tests.e2e.browser import needs_chromium
from tests.e2e.page_browser import PATIENCE_MS, chromium, playwright, showing_page
from tests.e2e.page_server import ADMIN_TOKEN, State, a_token, now_ms, page_serving, signal

pytestmark = needs_chromium
__all__ = ["chromium", "playwright"]  # fixtures

AXE = Path(__file__).parents[1] / "browser" / "node_modules" / "axe-core" / "axe.min.js"
MINUTE_MS = 60_000
PAINTED_MS = 5_000  # a second, on a machine that others do not use as well
WIDTHS = (390, 720, 1024, 1440, 3840)
VIEWS = ("market", "watch", "signals", "admin")

COLORS = """() => {
  const nodes = [...document.querySelectorAll(".px, .pc, .last, .tape .row span")];
  const shown = nodes.filter((node) => node.offsetParent && node.textContent.trim());
  return [...new Set(shown.map((node) => getComputedStyle(node).color))];
}"""

COLOR_OF = "(selector) => getComputedStyle(document.querySelector(selector)).color"

FROM_NEWEST = """() => {
  const { chart, candles } = document.querySelector("k-chart");
  return chart.timeScale().getVisibleLogicalRange().to - (candles.times.length - 1);
}"""
STEPS = """() => {
  const { times } = document.querySelector("k-chart").candles;
  return [...new Set(times.slice(1).map((time, at) => time - times[at]))];
}"""

RUN_AXE = """async () => {
  const { violations } = await axe.run();
  const told = ({ html, failureSummary }) => html.slice(0, 160) + failureSummary;
  return violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(told).join(" | ")}`);
}"""


@pytest.fixture
def server() -> Iterator[tuple[str, State]]:
    """The page's address, and what its server does."""
    with page_serving() as served:
        yield served


# ---- words


def words(language: str) -> dict[str, list[str]]:
    """Placeholders by the key of their words; those of all plural forms together."""
    text = (STATIC / "words" / f"{language}.js").read_text()
    entries = re.findall(r'^  (\w+): (".*?"|\{.*?\}),$', text, re.MULTILINE | re.DOTALL)
    return {
        key: sorted(set(re.findall(r"\{(\w+)\}", value.strip("{} ") if value.startswith("{") else value)))
        for key, value in entries
    }


def test_both_languages_say_the_same_things() -> None:
    """Equal keys, equal placeholders; no key stands twice."""
    english, russian = words("en"), words("ru")
    assert english.keys() == russian.keys()
    assert len(english) > 200
    assert {key: (english[key], russian[key]) for key in english if english[key] != russian[key]} == {}


def test_every_word_that_is_asked_for_is_there() -> None:
    """In scripts and in the shell; a missing one would be shown as its key."""
    source = "\n".join(path.read_text() for kind in ("*.js", "*.html") for path in STATIC.glob(kind))
    asked = set(re.findall(r'\bt\("(\w+)"', source)) | set(
        re.findall(r'data-t(?:-label|-title|-hint)?"?(?:=|: )"(\w+)"', source)
    )
    assert asked - words("en").keys() == set()


# ---- shape


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("language", ["en", "ru"])
def test_nothing_is_wider_than_the_window(
    chromium: Browser, server: tuple[str, State], width: int, language: str
) -> None:
    """From a phone to 4K, in each view, and nothing is drawn past the edge of its panel's head."""
    url, _ = server
    tokens = {"signals": a_token(), "admin": ADMIN_TOKEN}
    with showing_page(chromium, url, size=(width, 900), settings={"language": language}, tokens=tokens) as page:
        for view in VIEWS:
            page.evaluate("(view) => { location.hash = `#${view}`; }", view)
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, view
            assert page.evaluate("document.body.scrollWidth - innerWidth") <= 0, view


def test_the_page_is_small_and_quick(chromium: Browser, server: tuple[str, State]) -> None:
    """Less than 300 KB on the line with the chart, and fewer than 1,500 nodes."""
    url, _ = server
    with showing_page(chromium, url) as page:
        page.wait_for_selector(".w-row.row .px")
        size = page.evaluate(
            "performance.getEntriesByType('resource').filter(({ name }) => name.includes('/static/'))"
            ".reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0)"
        )
        assert size < 300_000
        assert page.evaluate("document.querySelectorAll('*').length") < 1_500
        assert page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") < PAINTED_MS


# ---- what is shown


def test_prices_are_the_digits_that_came(chromium: Browser, server: tuple[str, State]) -> None:
    """Text in, text out: no rounding; zeros beyond the tick are cut."""
    url, state = server
    with showing_page(chromium, url) as page:
        for symbol in ("BTCUSDT", "PEPEUSDT", "XRPUSDT"):
            row = page.locator(f"[data-symbol={symbol}]")
            expect(row.locator(".px")).to_have_text(re.compile(r"\d"), timeout=PATIENCE_MS)
            shown = (row.locator(".px").text_content() or "").replace("\u202f", "")
            places = state.instruments[symbol].places
            assert re.fullmatch(rf"\d+\.\d{{{places}}}", shown), shown


def test_markup_in_a_coin_is_text(chromium: Browser, server: tuple[str, State]) -> None:
    """Nothing from the network is ever HTML."""
    url, state = server
    hostile = "<img src=x onerror=alert(1)>"
    state.signals.append(signal(25, coin=hostile))
    with showing_page(chromium, f"{url}#signals", tokens={"signals": a_token()}) as page:
        expect(page.locator("k-signals tbody")).to_contain_text(hostile, timeout=PATIENCE_MS)
        page.locator("k-signals tbody tr", has_text=hostile).click()
        expect(page.locator("k-access")).to_contain_text(hostile)
        assert page.locator("img").count() == 0


def test_a_declared_gap_is_in_the_chart(chromium: Browser, server: tuple[str, State]) -> None:
    """With the server's reason; G goes to it; a range whose candles are there is none."""
    url, state = server
    minute = now_ms() // MINUTE_MS * MINUTE_MS
    missing = [minute - MINUTE_MS * back for back in (30, 29, 28)]
    state.instruments["BTCUSDT"].missing = set(missing)
    state.gap = json.dumps(
        {
            "stream": "btcusdt@kline_1m",
            "from": missing[0],
            "to": missing[-1],
            "filled": False,
            "reason": "no answer in 15 s",
        }
    )
    with showing_page(chromium, url) as page:
        page.wait_for_function("() => document.querySelector('k-chart').shownGaps?.length === 1", timeout=PATIENCE_MS)
        page.keyboard.press("g")
        expect(page.locator("k-chart [role=status]")).to_contain_text("Gap, 3 candles: no answer in 15 s")


def test_older_candles_come_when_the_view_goes_left(chromium: Browser, server: tuple[str, State]) -> None:
    """Open times stay unique and equally spaced."""
    url, _ = server
    with showing_page(chromium, url) as page:
        page.wait_for_function(
            "() => document.querySelector('k-chart').candles.times.length >= 500", timeout=PATIENCE_MS
        )
        page.evaluate("document.querySelector('k-chart').chart.timeScale().scrollToPosition(-480, false)")
        page.wait_for_function(
            "() => document.querySelector('k-chart').candles.times.length >= 990", timeout=PATIENCE_MS
        )
        steps = page.evaluate(STEPS)
        assert steps == [MINUTE_MS]
        page.get_by_role("button", name="Go to live").click()
        # In the library's next frame; an animation ended where the next event found it.
        page.wait_for_function(f"() => ({FROM_NEWEST})() >= 0", timeout=PAINTED_MS)


def test_a_symbol_that_falls_silent_is_marked(chromium: Browser, server: tuple[str, State]) -> None:
    """By a sign and a word, not only by a colour; its order book is hidden."""
    url, state = server
    with showing_page(chromium, url) as page:
        expect(page.locator("k-book .bids .row").first).to_be_visible(timeout=PATIENCE_MS)
        state.stale.add("BTCUSDT")
        expect(page.locator("[data-symbol=BTCUSDT] small")).to_have_text("▲ stale", timeout=PATIENCE_MS)
        expect(page.locator("k-book .row")).to_have_count(0)
        expect(page.locator("k-book")).to_contain_text("Out of date: shown again as soon as it is current")
        expect(page.locator("k-chart .last")).to_have_class("last")  # neither rising nor falling
        expect(page.locator("k-chart [data-is=old]")).to_contain_text("old")


def test_a_server_that_is_away_is_said_within_three_seconds(chromium: Browser, server: tuple[str, State]) -> None:
    """A banner, no order book, no rising or falling colour; all of it is taken back when the server is there again."""
    url, state = server
    with showing_page(chromium, url, faults=True) as page:
        expect(page.locator("k-book .bids .row").first).to_be_visible(timeout=PATIENCE_MS)
        state.is_away = True
        expect(page.locator("#banner")).to_be_visible(timeout=8_000)
        expect(page.locator("k-book .row")).to_have_count(0)
        colors = page.evaluate(COLORS)
        assert len(colors) == 1, colors
        state.is_away = False
        expect(page.locator("#banner")).to_be_hidden(timeout=60_000)
        expect(page.locator("k-book .bids .row").first).to_be_visible(timeout=PATIENCE_MS)


def test_an_exchange_that_cannot_be_reached_is_named(chromium: Browser, server: tuple[str, State]) -> None:
    """With the reason, in one sentence."""
    url, state = server
    with showing_page(chromium, url) as page:
        state.exchange = ("reconnecting", "connection refused")
        expect(page.locator("#banner")).to_contain_text(
            "Exchange unreachable: connection refused. komas keeps trying.", timeout=10_000
        )
        state.exchange = ("reconnecting", "HTTP 451: Service unavailable from a restricted location")
        expect(page.locator("#banner")).to_contain_text("Binance blocks this region", timeout=10_000)


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        (1008, "Unauthorized", "1008: the token is wrong or has expired"),
        (1008, "VIP subscription required", "1008: VIP ended"),
        (1008, "Disconnected by an administrator", "1008: an administrator disconnected you"),
        (1008, "Invalid request", "1008: page and server disagree"),
        (1008, "Origin not allowed", "cors_origins"),
        (1001, "Server shutting down", "1001: the server is restarting"),
        (1013, "Try again later", "1013: the server is too busy"),
        (1011, "Internal error", "1011: error in komas"),
    ],
)
def test_a_close_code_is_said_in_words(
    chromium: Browser, server: tuple[str, State], code: int, reason: str, said: str
) -> None:
    """And what to do."""
    url, state = server
    state.close = (code, reason)
    with showing_page(chromium, f"{url}#signals", tokens={"signals": a_token()}, faults=True) as page:
        expect(page.locator("k-access .say")).to_contain_text(said, timeout=PATIENCE_MS)


def test_tokens_stay_in_their_tab(chromium: Browser, server: tuple[str, State]) -> None:
    """Never in the storage that outlives it, nor in an address."""
    url, _ = server
    token = a_token()
    with showing_page(chromium, f"{url}#signals", tokens={"signals": token, "admin": ADMIN_TOKEN}) as page:
        kept = page.evaluate("JSON.stringify({ ...localStorage }) + location.href")
        assert token not in kept
        assert ADMIN_TOKEN not in kept


# ---- hands


def test_a_trader_without_a_mouse(chromium: Browser, server: tuple[str, State]) -> None:
    """Finds a symbol, opens it, changes the interval, groups the book's view, pauses the tape."""
    url, _ = server
    with showing_page(chromium, url) as page:
        expect(page.locator("[data-symbol=BTCUSDT] .px")).to_have_text(re.compile(r"\d"), timeout=PATIENCE_MS)
        page.keyboard.press("/")
        page.keyboard.type("sol")
        page.keyboard.press("ArrowDown")
        expect(page.locator("[data-symbol=SOLUSDT]")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("[data-is=base]")).to_have_text("SOL")
        page.keyboard.press("]")
        expect(page.locator("[role=radiogroup] [aria-checked=true]")).to_have_text("3m")
        page.keyboard.press("p")
        expect(page.locator(".pause")).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("s")
        expect(page.locator("#tab-signals")).to_have_attribute("aria-selected", "true")
        page.keyboard.press(",")
        expect(page.locator("#settings select").first).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator("#settings")).to_be_hidden()


def test_removing_a_symbol_can_be_undone(chromium: Browser, server: tuple[str, State]) -> None:
    """And what remains is remembered."""
    url, _ = server
    with showing_page(chromium, url) as page:
        row = page.locator("[data-symbol=ETHUSDT]")
        expect(row).to_be_visible(timeout=PATIENCE_MS)
        row.focus()
        page.keyboard.press("Delete")
        expect(row).to_have_count(0)
        page.locator("#toast button").click()
        expect(row).to_be_visible()


def test_only_the_rows_in_view_exist(chromium: Browser) -> None:
    """Two hundred symbols, scrolled to the end: those in view, and eight beyond each edge."""
    with page_serving(200) as (url, state):
        symbols = list(state.instruments)
        with showing_page(chromium, url, settings={"watchlist": symbols}) as page:
            grid = page.locator("k-watchlist [role=grid]")
            expect(grid).to_have_attribute("aria-rowcount", "201", timeout=PATIENCE_MS)
            for top in range(0, 7_200, 400):
                grid.evaluate("(grid, top) => { grid.scrollTop = top; }", top)
                page.wait_for_timeout(30)
                assert page.locator(".w-row.row").count() <= 24 + 2 * 8


def test_an_administrator_publishes_and_revokes(chromium: Browser, server: tuple[str, State]) -> None:
    """Numbers keep their digits; what cannot be undone is asked about, by name."""
    url, state = server
    with showing_page(chromium, f"{url}#admin", tokens={"admin": ADMIN_TOKEN}) as page:
        page.locator(".publish .primary").click()
        expect(page.locator("[name=coin_name]")).to_have_attribute("aria-invalid", "true")  # nobody gets an empty one
        assert state.posted == []
        page.locator("[name=coin_name]").fill("NB")
        page.locator("[name=spread]").fill("8.8400")
        page.locator("[name=data]").fill('{"mexc_spot_price": 0.0418700}')
        page.locator(".publish .primary").click()
        expect(page.locator("#toast")).to_contain_text("published")
        assert '"spread": 8.8400' in state.posted[-1][2]
        assert '"mexc_spot_price": 0.0418700' in state.posted[-1][2]
        page.locator("[name=data]").fill("not json")
        page.locator(".publish .primary").click()
        expect(page.locator("[name=data]")).to_have_attribute("aria-invalid", "true")
        page.locator(".vip [name=user]").fill("123")
        page.get_by_role("button", name="Revoke and disconnect").click()
        expect(page.locator("dialog[open]")).to_contain_text("Revoke 123, close connections: 1?")
        page.locator("dialog[open] .danger").click()
        expect(page.locator(".vip [role=status]")).to_contain_text("123 revoked")
        assert state.posted[-1][:2] == ("DELETE", "/api/vip/123")


def test_any_signal_can_be_changed(chromium: Browser, server: tuple[str, State]) -> None:
    """Chosen from the list, by keyboard: only what is written anew is sent. It was the last published one alone."""
    url, state = server
    state.signals[9]["data"] |= {"coin_name": "OLD", "position": "SHORT", "spread": 5}  # type: ignore[operator]
    with showing_page(chromium, f"{url}#admin", tokens={"admin": ADMIN_TOKEN}) as page:
        page.locator(".choose").get_by_role("button", name="Older").press("Enter")
        page.get_by_role("button", name="Change signal 4").press("Enter")
        page.locator(".choose").get_by_role("button", name="Newer").press("Enter")
        page.get_by_role("button", name="Change signal 10").press("Enter")
        expect(page.locator(".publish h2")).to_be_focused()
        expect(page.locator(".publish h2")).to_have_text("Change signal 10")
        expect(page.locator("[name=coin_name]")).to_have_value("OLD")
        expect(page.locator("[name=position]")).to_have_value("SHORT")
        update = page.get_by_role("button", name="Update 10")
        update.press("Enter")
        expect(page.locator(".publish .wrong", has_text="Nothing was changed")).to_be_visible()
        assert state.posted == []
        page.locator("[name=spread]").fill("9.5000")
        page.keyboard.press("Enter")
        expect(page.locator("#toast")).to_contain_text("Signal 10 updated")
        assert state.posted == [("PATCH", "/api/signals/10", '{"data": {"spread": 9.5000}}')]
        page.locator("#language").click()
        expect(page.get_by_role("button", name="Изменить 10")).to_be_visible()
        expect(page.locator(".publish h2")).to_have_text("Изменить сигнал 10")
        page.get_by_role("button", name="Новый сигнал").click()
        expect(page.locator(".publish h2")).to_have_text("Опубликовать сигнал")
        expect(page.locator("[name=coin_name]")).to_be_focused()
        expect(page.locator("[name=coin_name]")).to_have_value("")


def test_another_language_leaves_no_words_of_the_old_one(chromium: Browser, server: tuple[str, State]) -> None:
    """What was said for a moment's reason, too, also while the server is away."""
    url, state = server
    with showing_page(chromium, f"{url}#admin", tokens={"admin": ADMIN_TOKEN}, faults=True) as page:
        page.locator(".vip [name=user]").fill("123")
        page.get_by_role("button", name="Revoke and disconnect").click()
        page.locator("dialog[open] .danger").click()
        expect(page.locator(".vip [role=status]")).to_contain_text("123 revoked", timeout=PATIENCE_MS)
        page.locator(".publish .primary").click()
        expect(page.locator(".publish .wrong:visible")).to_have_text("Which coin is it about?", timeout=PATIENCE_MS)
        expect(page.locator(".who tbody tr").first).to_contain_text("user 55", timeout=PATIENCE_MS)
        page.locator("#language").click()
        expect(page.locator(".vip [role=status]")).to_have_text("123: VIP отозван", timeout=PATIENCE_MS)
        expect(page.locator(".publish .wrong:visible")).to_have_text("Укажите монету", timeout=PATIENCE_MS)
        expect(page.locator(".who tbody tr").first).to_contain_text("пользователь 55", timeout=PATIENCE_MS)
        state.is_away = True
        page.locator("#language").click()
        expect(page.locator(".who tbody tr").first).to_contain_text("user 55", timeout=PATIENCE_MS)


def test_what_an_administrator_sees_is_grey_when_it_is_old(chromium: Browser, server: tuple[str, State]) -> None:
    """With the moment that it is of: it looked like the present."""
    url, state = server
    with showing_page(chromium, f"{url}#admin", tokens={"admin": ADMIN_TOKEN}, faults=True) as page:
        as_of = page.locator(".sum div", has_text="As of")
        expect(as_of).to_contain_text(re.compile(r"\d\d:\d\d:\d\d"), timeout=PATIENCE_MS)
        fresh = page.evaluate(COLOR_OF, ".who td span")
        state.is_away = True
        expect(as_of).to_contain_text("no answer for", timeout=PATIENCE_MS)
        assert page.evaluate(COLOR_OF, ".who td span") != fresh
        state.is_away = False
        expect(as_of).not_to_contain_text("no answer for", timeout=PATIENCE_MS)


def test_every_gap_that_was_declared_is_in_the_list(chromium: Browser, server: tuple[str, State]) -> None:
    """Also what this page alone was told: the top bar counted it, and the list had none."""
    url, state = server
    state.gap = json.dumps({"stream": "btcusdt@kline_1m", "from": 7, "to": 9, "reason": None, "filled": False})
    with showing_page(chromium, url, tokens={"admin": ADMIN_TOKEN}) as page:
        expect(page.locator(".health .more")).to_contain_text("1 gap", timeout=PATIENCE_MS)
        page.locator("#tab-admin").click()
        own = page.locator(".gaps tbody tr", has_text="this page only")
        expect(own).to_have_count(1, timeout=PATIENCE_MS)
        expect(own).to_contain_text("btcusdt@kline_1m")
        expect(own).to_contain_text("no reason given")
        expect(page.locator(".gaps .note")).to_contain_text("this page only", ignore_case=True)


def test_nothing_of_an_administrators_tables_is_beyond_the_edge_of_a_phone(
    chromium: Browser, server: tuple[str, State]
) -> None:
    """Rows are cards there; each value has its column's name, and a screen reader still finds a table."""
    url, _ = server
    with showing_page(chromium, f"{url}#admin", size=(390, 844), tokens={"admin": ADMIN_TOKEN}) as page:
        expect(page.locator(".who tbody tr").first).to_be_visible(timeout=PATIENCE_MS)
        for place in page.locator(".admin .scroll:visible").all():
            assert place.evaluate("(place) => place.scrollWidth - place.clientWidth") <= 0
        button = page.locator(".who").get_by_role("button", name="Disconnect").first
        box = button.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 390
        assert page.locator(".who").get_by_role("cell").first.get_attribute("data-name") == "User"


def test_a_field_with_an_error_stays_beside_its_neighbour(chromium: Browser, server: tuple[str, State]) -> None:
    """The other one was stretched to the height of both."""
    url, _ = server
    with showing_page(chromium, f"{url}#admin", tokens={"admin": ADMIN_TOKEN}) as page:
        page.locator(".publish .primary").click()
        expect(page.locator("[name=coin_name]")).to_have_attribute("aria-invalid", "true")
        one, other = (page.locator(f"[name={name}]").bounding_box() for name in ("signal_type", "coin_name"))
        assert one is not None
        assert other is not None
        assert (one["y"], one["height"]) == (other["y"], other["height"])


@pytest.mark.parametrize("width", [390, 1440])
def test_a_signal_is_shown_in_the_readers_words(chromium: Browser, server: tuple[str, State], width: int) -> None:
    """With its type and a moment of this computer's clock; on a phone it is brought into view, and back."""
    url, _ = server
    settings: dict[str, object] = {"language": "ru"}
    with showing_page(
        chromium, f"{url}#signals", size=(width, 844), settings=settings, tokens={"signals": a_token()}
    ) as page:
        row = page.locator("k-signals tr.pick").nth(2)
        row.click(timeout=PATIENCE_MS)
        detail = page.locator("k-access section").last
        expect(detail).to_be_in_viewport()
        expect(detail.locator("dt")).to_have_text(
            ["Тип", "Монета", "Позиция", "Спред, %", "Цена, mexc spot", "Опубликован"]
        )
        expect(detail.locator("dd").last).to_have_text(re.compile(r"\d{4} \S+, \d\d:\d\d:\d\d [A-Z]+.*, .* назад"))
        if width == 390:
            expect(detail.locator("h2")).to_be_focused()
        detail.get_by_role("button", name="Закрыть").click()
        expect(detail).to_be_hidden()
        expect(row).to_be_focused()


def test_signals_that_were_seen_are_new_no_more(chromium: Browser, server: tuple[str, State]) -> None:
    """Whatever else comes meanwhile: each event began the wait anew."""
    url, state = server
    with showing_page(chromium, url, tokens={"signals": a_token()}) as page:
        expect(page.locator("k-dock tbody tr").first).to_be_visible(timeout=PATIENCE_MS)
        state.signals.append(signal(len(state.signals) + 1))
        badge = page.locator("#tab-signals .count")
        expect(badge).to_be_visible(timeout=PATIENCE_MS)
        page.locator("#tab-signals").click()
        ticking = "setInterval(() => document.querySelector('k-signals').take(null, []), 500)"
        page.evaluate(ticking)
        expect(badge).to_be_hidden(timeout=8_000)


def test_connecting_keeps_the_keyboard_in_its_place(chromium: Browser, server: tuple[str, State]) -> None:
    """The form goes, and what had the focus with it: it was on the body then."""
    url, _ = server
    with showing_page(chromium, url) as page:
        page.locator("k-dock .empty button").click()
        expect(page.locator("#token")).to_be_focused()
        page.locator("#token").fill(a_token())
        page.keyboard.press("Enter")
        expect(page.locator("k-access h2").first).to_be_focused()
        page.locator("#tab-admin").click()
        page.locator(".gate input").fill(ADMIN_TOKEN)
        page.keyboard.press("Enter")
        expect(page.get_by_role("searchbox", name="User or address")).to_be_focused()


def test_an_administrator_reads_the_list_of_vips(chromium: Browser, server: tuple[str, State]) -> None:
    """Page by page, with until when; each is revoked or granted from there, by keyboard; ids are text."""
    url, state = server
    soon, over = int(time.time()) + 2_592_000, int(time.time()) - 86_400
    state.vips = {f"user-{number:03}": (False, soon) for number in range(49)}
    state.vips |= {"z-over": (False, over), "z-revoked": (True, soon), "<b>z</b>&amp;": (False, soon)}
    with showing_page(chromium, f"{url}#admin", tokens={"admin": ADMIN_TOKEN}) as page:
        rows = page.locator(".vip tbody tr")
        expect(rows).to_have_count(50, timeout=PATIENCE_MS)
        expect(rows.first).to_contain_text("<b>z</b>&amp;")
        page.locator(".vip").get_by_role("button", name="More").press("Enter")
        expect(rows).to_have_count(2)
        expect(rows.nth(0)).to_contain_text("expired: ")
        expect(rows.nth(1)).to_contain_text("revoked")
        page.get_by_role("button", name="Grant VIP to z-revoked").press("Enter")
        page.get_by_role("button", name="Revoke z-revoked and disconnect").press("Enter")
        assert state.posted[-1] == ("POST", "/api/vip/z-revoked", '{"days": 30}')
        expect(page.locator("dialog[open]")).to_contain_text("Revoke z-revoked")
        page.keyboard.press("Escape")
        assert state.posted[-1][0] == "POST"
        page.get_by_role("button", name="Revoke z-revoked and disconnect").press("Enter")
        page.locator("dialog[open] .danger").press("Enter")
        expect(rows.nth(1)).to_contain_text("revoked")
        assert state.posted[-1][:2] == ("DELETE", "/api/vip/z-revoked")
        page.locator(".vip").get_by_role("button", name="Back").press("Enter")
        expect(rows).to_have_count(50)
        page.locator("#language").click()
        expect(page.get_by_role("button", name="Отозвать VIP и отключить: user-000")).to_have_text("Отозвать")


def test_a_store_that_is_away_hides_only_the_list_of_vips(chromium: Browser, server: tuple[str, State]) -> None:
    """It is said in the list's place; the rest of the view goes on."""
    url, state = server
    state.is_store_away = True
    with showing_page(chromium, f"{url}#admin", tokens={"admin": ADMIN_TOKEN}, faults=True) as page:
        expect(page.locator(".vip .wrong").last).to_have_text("the store of signals is away", timeout=PATIENCE_MS)
        expect(page.locator(".who tbody tr").first).to_be_visible()
        expect(page.locator(".log pre")).to_contain_text("published by demo")


def test_the_log_says_what_happened(chromium: Browser, server: tuple[str, State]) -> None:
    """With the keys of a record: it was a column of times and levels."""
    url, _ = server
    with showing_page(chromium, f"{url}#admin", tokens={"admin": ADMIN_TOKEN}) as page:
        log = page.locator("[role=log]")
        expect(log).to_contain_text(re.compile(r"\d\d:\d\d:\d\d INFO +signal 1840 published by demo\n"))
        expect(log).to_contain_text('connection lost reason="cut by the exchange" after_s=1.5')


def test_the_language_changes_at_once(chromium: Browser, server: tuple[str, State]) -> None:
    """All that stands on the page, and what a screen reader is told of it."""
    url, _ = server
    with showing_page(chromium, url) as page:
        page.locator("#language").click()
        expect(page.locator("#tab-market")).to_have_text("Рынок")
        expect(page.locator("k-book h2")).to_have_text("Стакан")
        expect(page.locator("k-chart")).to_have_attribute("aria-label", "График")
        assert page.evaluate("document.documentElement.lang") == "ru"


def test_without_motion_nothing_moves(chromium: Browser, server: tuple[str, State]) -> None:
    """For those who asked their system for it."""
    url, _ = server
    with showing_page(chromium, url, motion="reduce") as page:
        expect(page.locator("[data-symbol=BTCUSDT] .px")).to_have_text(re.compile(r"\d"), timeout=PATIENCE_MS)
        page.wait_for_timeout(2_500)
        assert page.evaluate("document.getAnimations().length") == 0


# ---- what a newcomer stumbled over


SHOWN = """(selector) => [...document.querySelectorAll(selector)].map((node) => {
  const box = node.getBoundingClientRect();
  const at = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  const isInside = box.width > 0 && box.left >= 0 && box.right <= innerWidth;
  return isInside && node.checkVisibility() && (node.contains(at) || at?.contains(node));
})"""

# Patterns of the words that are not the same in Russian, with anything for their placeholders.
ENGLISH_ONLY = r"""async () => {
  const [en, ru] = await Promise.all(["en", "ru"].map((name) => import(`./static/words/${name}.js`)));
  const flat = (words) => Object.values(words.default).flatMap((word) => (word.trim ? word : Object.values(word)));
  const same = new Set(flat(ru));
  const isOdd = (word) => !same.has(word) && /[a-z]{3}/i.test(word.replace(/\{\w+\}/g, ""));
  const escaped = (word) => word.replace(/[.*+?^$()|[\]\\]/g, "\\$&").replace(/\{\w+\}/g, ".*");
  return flat(en).filter(isOdd).map((word) => `^${escaped(word)}$`);
}"""

RING = """() => {
  const [area, ...inside] = document.querySelectorAll(".plotarea, .plotarea *");
  const { outlineStyle, zIndex } = getComputedStyle(area, "::after");
  const over = inside.map((node) => Number(getComputedStyle(node).zIndex) || 0);
  return [[outlineStyle, Number(zIndex)], Math.max(...over)];
}"""

LANGUAGE_LEFT = """(texts) => {
  const named = (node) => ["aria-label", "title", "placeholder"].map((name) => node.getAttribute(name));
  const own = (node) => [...node.childNodes].filter(({ nodeType }) => nodeType === 3).map(({ data }) => data);
  const shown = [...document.querySelectorAll("body *:not(kbd)")].filter((node) => node.checkVisibility());
  const said = shown.flatMap((node) => [...named(node), ...own(node)]);
  return said.filter((text) => text && texts.some((one) => new RegExp(one).test(text.trim())));
}"""


@pytest.mark.parametrize(
    ("language", "remove", "add", "gone"),
    [
        ("en", "Remove ETHUSDT from the list", "Add ETHUSDT to the list", "ETHUSDT removed"),
        ("ru", "Убрать ETHUSDT из списка", "Добавить ETHUSDT в список", "ETHUSDT убрана"),
    ],
)
def test_a_symbol_is_removed_and_added_by_its_button(
    chromium: Browser, server: tuple[str, State], language: str, remove: str, add: str, gone: str
) -> None:
    """By mouse and by keyboard; the Del key alone did it. It can be undone, and another symbol is not opened."""
    url, _ = server
    with showing_page(chromium, url, settings={"language": language}) as page:
        row = page.locator("[data-symbol=ETHUSDT]")
        page.get_by_role("button", name=remove).click(timeout=PATIENCE_MS)
        expect(row).to_have_count(0)
        expect(page.locator("#toast")).to_contain_text(gone)
        page.locator("#toast button").click()
        expect(row).to_be_focused()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("button", name=remove)).to_be_focused()
        page.keyboard.press("Enter")
        expect(row).to_have_count(0)
        assert page.evaluate("document.activeElement.dataset.symbol")  # its neighbour has the focus
        page.keyboard.press("/")
        page.keyboard.type("eth/usdt")
        page.get_by_role("button", name=add).click()
        expect(page.get_by_role("button", name=remove)).to_be_visible()
        expect(page.locator("[data-is=base]")).to_have_text("BTC")


def test_a_touch_removes_a_symbol_and_takes_it_back(chromium: Browser, server: tuple[str, State]) -> None:
    """On a phone, by a button of 44 px."""
    url, _ = server
    with showing_page(chromium, f"{url}#watch", size=(390, 844)) as page:
        star = page.get_by_role("button", name="Remove ETHUSDT from the list")
        expect(star).to_be_visible(timeout=PATIENCE_MS)
        box = star.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 44
        star.click()
        expect(page.locator("[data-symbol=ETHUSDT]")).to_have_count(0)
        page.locator("#toast button").click()
        expect(page.locator("[data-symbol=ETHUSDT]")).to_be_visible()
        page.locator("[data-symbol=ETHUSDT]").press("Enter")
        expect(page.locator(".inst [data-is=base]")).to_have_text("ETH")
        expect(page.locator("#main")).to_be_focused()  # its row is hidden: the focus was lost


def test_a_search_marks_what_is_in_the_list(chromium: Browser, server: tuple[str, State]) -> None:
    """And what is on the exchange only; a query that nothing matches is repeated as it was typed."""
    url, _ = server
    with showing_page(chromium, url, settings={"watchlist": ["BTCUSDT", "SOLUSDT"]}) as page:
        page.locator("#search").fill("S")
        expect(page.locator("[data-symbol=SOLUSDT] small")).to_have_text("in the list", timeout=PATIENCE_MS)
        expect(page.locator("[data-symbol=SOLUSDT] .star.on")).to_be_visible()
        expect(page.locator("[data-symbol=SEIUSDT] .star:not(.on)")).to_be_visible()
        expect(page.locator("[data-symbol=SEIUSDT] small")).not_to_have_text("in the list")
        page.locator("#search").fill("no/such")
        expect(page.locator("k-watchlist .empty")).to_contain_text("No symbol matches “no/such”")
        expect(page.locator("k-watchlist .found")).to_be_hidden()


@pytest.mark.parametrize("width", [390, 820, 1280])
@pytest.mark.parametrize("language", ["en", "ru"])
def test_what_a_chart_and_a_book_offer_is_there_at_every_width(
    chromium: Browser, server: tuple[str, State], width: int, language: str
) -> None:
    """Back to live, the table, all candles, a candle's prices, the book's grouping, funding; also of small prices."""
    url, _ = server
    settings: dict[str, object] = {"language": language}
    with showing_page(chromium, f"{url}#market/PEPEUSDT/1m", size=(width, 1_400), settings=settings) as page:
        expect(page.locator("k-chart .legend b").first).to_have_text(re.compile(r"\d"), timeout=PATIENCE_MS)
        expect(page.locator("k-book .bids .row").first).to_be_visible(timeout=PATIENCE_MS)
        for selector in (".bar .live", ".bar .table", ".bar .fit", "k-book select"):
            assert page.evaluate(SHOWN, selector) == [True], selector
        assert page.evaluate("() => document.querySelector('.legend').checkVisibility()")
        if width < 1280:
            page.locator("#tab-funding").click()
            expect(page.locator("k-funding dd").nth(2)).to_have_text(re.compile("%"))
        else:
            expect(page.locator("[data-is=funding]")).to_have_text(re.compile("%"))
            assert page.evaluate(SHOWN, "[data-is=funding]") == [True]
        wide = "(node) => node.scrollWidth > node.clientWidth"
        for selector in (".inst", "k-chart .bar", "k-book .head"):
            assert not page.locator(selector).evaluate(wide), selector


def test_a_books_grouping_is_kept_for_its_symbol(chromium: Browser, server: tuple[str, State]) -> None:
    """Over a reload; another symbol has its own."""
    url, _ = server
    with showing_page(chromium, f"{url}#market/BTCUSDT/1m") as page:
        group = page.locator("k-book select")
        expect(page.locator("k-book .bids .row").first).to_be_visible(timeout=PATIENCE_MS)
        group.select_option("100")
        page.reload()
        expect(group).to_have_value("100", timeout=PATIENCE_MS)
        expect(page.locator("k-book .bids .row span").first).to_have_text(re.compile(r"^\d+\u202f\d+\.00$"))
        page.evaluate("location.hash = '#market/ETHUSDT/1m'")
        expect(group).to_have_value("1")


def test_the_end_of_history_is_said_beside_the_candles(chromium: Browser, server: tuple[str, State]) -> None:
    """Never over them."""
    url, _ = server
    with showing_page(chromium, url) as page:
        page.wait_for_function(
            "() => document.querySelector('k-chart').candles.times.length >= 500", timeout=PATIENCE_MS
        )
        note = page.locator(".plotnote")
        room = page.evaluate(
            """async () => {
              const chart = document.querySelector("k-chart");
              const scale = chart.chart.timeScale();
              chart.isAtStart = true;
              scale.setVisibleLogicalRange({ from: -40, to: 60 });
              for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
              chart.paint();
              return scale.logicalToCoordinate(0);
            }"""
        )
        expect(note).to_have_text("No older candles Try again")
        expect(note).to_be_visible()
        right = note.evaluate("(node) => node.offsetLeft + node.offsetWidth")
        assert 0 < right <= room
        page.evaluate(
            """async () => {
              const chart = document.querySelector("k-chart");
              chart.chart.timeScale().setVisibleLogicalRange({ from: -2, to: 90 });
              for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
              chart.paint();
            }"""
        )
        expect(note).to_be_hidden()


def test_the_focus_of_the_chart_is_a_whole_ring(chromium: Browser, server: tuple[str, State]) -> None:
    """The library's canvases lay over most of it."""
    url, _ = server
    with showing_page(chromium, url) as page:
        page.locator(".bar .live").focus()
        page.keyboard.press("Tab")
        expect(page.locator(".plot")).to_be_focused()
        ring, over = page.evaluate(RING)
        assert ring[0] == "solid"
        assert ring[1] > over


def test_every_gap_that_is_counted_is_found(chromium: Browser, server: tuple[str, State]) -> None:
    """From the count, and by G where the chart has none; the same range again is the same gap."""
    url, state = server
    minute = now_ms() // MINUTE_MS * MINUTE_MS
    missing = [minute - MINUTE_MS * back for back in (30, 29, 28)]
    state.instruments["ETHUSDT"].missing = set(missing)
    gap = {"stream": "ethusdt@kline_1m", "from": missing[0], "to": missing[-1], "filled": False, "reason": "no answer"}
    trades = {"stream": "btcusdt@trade", "from": 11, "to": 16, "filled": False, "reason": None}
    with showing_page(chromium, f"{url}#market/ETHUSDT/1m") as page:
        page.wait_for_function("() => document.querySelector('k-chart').candles.times.length > 99", timeout=PATIENCE_MS)
        state.gap = json.dumps(gap)
        expect(page.locator(".health .more")).to_contain_text("1 gap", timeout=PATIENCE_MS)
        state.gap = json.dumps(gap, indent=None, separators=(",", ":"))
        page.evaluate("location.hash = '#market/BTCUSDT/1m'")
        expect(page.locator("k-tape .row").first).to_be_visible(timeout=PATIENCE_MS)
        state.gap = json.dumps(trades)
        expect(page.locator(".health .more")).to_contain_text("2 gaps", timeout=PATIENCE_MS)
        page.keyboard.press("g")
        expect(page.locator("#toast")).to_contain_text("No gap in this chart, 2 elsewhere")
        page.locator("#toast button").click()
        rows = page.locator(".gaplist li")
        expect(rows.nth(0)).to_contain_text("BTCUSDT, trades")
        expect(rows.nth(0)).to_contain_text("Gap, 6 trades: this page was away for longer than komas keeps data")
        expect(rows.nth(1)).to_contain_text("ETHUSDT, 1m candles")
        expect(rows.nth(0).get_by_role("button")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("k-tape .note")).to_be_in_viewport()
        page.locator(".health").click()
        rows.nth(1).get_by_role("button").click()
        expect(page.locator("k-chart [role=status]")).to_contain_text("Gap, 3 candles: no answer", timeout=PATIENCE_MS)
        expect(page.locator(".inst [data-is=base]")).to_have_text("ETH")


def test_the_figures_of_a_server_that_is_away_are_said_to_be_old(chromium: Browser, server: tuple[str, State]) -> None:
    """In the details of the connection they looked like those of now."""
    url, state = server
    with showing_page(chromium, url, faults=True) as page:
        page.locator(".health").click()
        streams = page.locator("#health-pop dt:text-is('Streams') + dd")
        expect(streams).to_contain_text("live", timeout=PATIENCE_MS)
        expect(streams).not_to_have_class("old")
        state.is_away = True
        expect(streams).to_have_text(re.compile("^last known: "), timeout=PATIENCE_MS)
        expect(streams).to_have_class("old")


def test_a_language_leaves_nothing_of_the_one_before(chromium: Browser, server: tuple[str, State]) -> None:
    """Neither in what is written once, nor in names and titles: a search, a rare interval, a gap, the settings."""
    url, state = server
    minute = now_ms() // MINUTE_MS * MINUTE_MS
    state.instruments["BTCUSDT"].missing = {minute - MINUTE_MS * 30}
    row = {"stream": "btcusdt@kline_30m", "from": minute - 30 * MINUTE_MS, "to": None, "filled": False, "reason": None}
    state.gap = json.dumps(row)
    with showing_page(chromium, f"{url}#market/BTCUSDT/30m") as page:
        expect(page.locator(".health .more")).to_contain_text("1 gap", timeout=PATIENCE_MS)
        page.locator("#search").fill("no-such")
        expect(page.locator("k-watchlist .empty")).to_contain_text("No symbol matches", timeout=PATIENCE_MS)
        page.keyboard.press("Tab")
        page.keyboard.press(",")
        expect(page.locator("#settings")).to_be_visible()
        page.keyboard.press("Escape")
        page.locator(".health").click()
        page.evaluate("document.querySelector('k-chart').describe()")
        page.locator("#language").click()
        expect(page.locator("#tab-market")).to_have_text("Рынок")
        page.wait_for_timeout(1_200)
        expect(page.locator(".bar .more")).to_have_text("30m")
        page.locator(".health").click()
        page.locator("#gear").press("Enter")
        expect(page.locator("#settings")).to_be_visible()
        texts = page.evaluate(ENGLISH_ONLY)
        assert len(texts) > 200
        left = page.evaluate(LANGUAGE_LEFT, texts)
        assert left == [], "\n".join(left)


def test_a_symbol_that_does_not_trade_has_its_last_price(chromium: Browser, server: tuple[str, State]) -> None:
    """Of its newest candle: the exchange sends no ticker before the next trade."""
    url, state = server
    state.quiet.add("XRPUSDT")
    with showing_page(chromium, f"{url}#market/XRPUSDT/1m") as page:
        expect(page.locator("[data-symbol=XRPUSDT] .px")).to_have_text(re.compile(r"\d"), timeout=PATIENCE_MS)
        expect(page.locator(".inst .last")).to_have_text(re.compile(r"\d"), timeout=PATIENCE_MS)
        expect(page.locator("[data-symbol=XRPUSDT] .pc")).not_to_have_text(re.compile(r"\d"))


def test_an_error_below_a_field_leaves_its_neighbour_where_it_is(chromium: Browser, server: tuple[str, State]) -> None:
    """Two fields in a row stay level."""
    url, _ = server
    with showing_page(chromium, f"{url}#admin", tokens={"admin": ADMIN_TOKEN}) as page:
        page.locator(".publish .primary").click()
        coin, kind = page.locator("[name=coin_name]"), page.locator("[name=signal_type]")
        expect(coin).to_have_attribute("aria-invalid", "true")
        tops = [field.evaluate("(node) => node.getBoundingClientRect().top") for field in (coin, kind)]
        assert tops[0] == tops[1]


# ---- for whom


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: npm ci in tests/browser")
@pytest.mark.parametrize("width", [390, 1024, 1440])
@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(chromium: Browser, server: tuple[str, State], theme: str, language: str, width: int) -> None:
    """In any view."""
    url, state = server
    state.vips = {"123": (False, int(time.time()) + 86_400), "87": (True, 0)}
    settings: dict[str, object] = {"language": language, "theme": theme}
    tokens = {"signals": a_token(), "admin": ADMIN_TOKEN}
    with showing_page(chromium, url, size=(width, 900), settings=settings, tokens=tokens) as page:
        page.evaluate(AXE.read_text())
        for view in VIEWS if width < 720 else ("market", "signals", "admin"):
            page.evaluate("(view) => { location.hash = `#${view}`; }", view)
            page.wait_for_timeout(1_200)
            assert page.evaluate(RUN_AXE) == [], view
