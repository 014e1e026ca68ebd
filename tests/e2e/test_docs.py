"""The page of the API in a real Chromium, against the demo: what it shows, what it sends, and what it never does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import needs_chromium
from tests.e2e.page_browser import PATIENCE_MS, WATCH_POLICY, chromium, playwright
from tests.e2e.processes import Server, token_for
from tests.e2e.test_page import AXE, RUN_AXE

__all__ = ["chromium", "playwright"]  # fixtures

pytestmark = needs_chromium


@contextmanager
def showing_docs(
    chromium: Browser, url: str, call: str = "", *, width: int = 1280, language: str = "en", scheme: str = "light"
) -> Iterator[tuple[Page, list[str]]]:
    """The page at a call, and the addresses it asked for; fails on errors, breaches of its policy, other hosts."""
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light", locale="en-GB"
    )
    context.add_init_script(f"localStorage.setItem('komas.language', {json.dumps(json.dumps(language))})")
    context.add_init_script(WATCH_POLICY)
    page = context.new_page()
    asked: list[str] = []
    wrongs: list[str] = []
    page.on("pageerror", lambda error: wrongs.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.goto(f"{url}/docs#{call}")
    expect(page.locator("#call .panel").first).to_be_visible(timeout=PATIENCE_MS)
    yield page, asked
    assert wrongs == []
    assert page.evaluate("window.breaches") == []
    host = url.partition("//")[2]
    assert [each for each in asked if f"//{host}/" not in each and not each.startswith("data:")] == []
    context.close()


def test_every_call_is_there_and_found(chromium: Browser, demo: Server) -> None:
    """By its path; the form of one is shown, with a line for a shell."""
    with showing_docs(chromium, demo.url) as (page, _):
        paths = demo.http.get("/openapi.json").json()["paths"]
        assert page.locator("#list a").count() == sum(len(calls) for calls in paths.values())
        page.locator("#find").fill("klines")
        expect(page.locator("#list a:visible")).to_have_count(2)
        page.locator("#list a:visible").first.click()
        expect(page.locator("#call h2")).to_be_focused()
        line = page.locator(".d-curl code")
        expect(line).to_have_text(f"curl '{demo.url}/api/ws/klines?symbol=BTCUSDT'")
        page.locator("#call label", has_text="limit").locator("input").fill("3")
        expect(line).to_contain_text("&limit=3'")


def test_a_call_is_found_in_russian_and_opened_by_enter(chromium: Browser, demo: Server) -> None:
    """The descriptions were English alone, and Enter did nothing."""
    with showing_docs(chromium, demo.url, language="ru") as (page, _):
        ids = {
            call["operationId"]
            for way in demo.http.get("/openapi.json").json()["paths"].values()
            for call in way.values()
        }
        known = page.evaluate("async () => Object.keys((await import('./static/words/calls-ru.js')).CALLS)")
        assert ids == set(known)
        page.locator("#find").fill("свечей прошлых")
        expect(page.locator("#list a:visible")).to_have_count(1)
        page.keyboard.press("Enter")
        expect(page.locator("#call h2")).to_be_focused()
        expect(page.locator("#call h2")).to_contain_text("Прошлые свечи")
        page.locator("#find").press("Enter")  # the same once more
        expect(page.locator("#call h2")).to_be_focused()
        page.locator("#find").fill("candles")
        expect(page.locator("#list a:visible")).to_have_count(2)  # in either language
        page.locator("#find").fill("нетакого")
        expect(page.locator("#calls [role=status]")).to_have_text("Таких вызовов нет")
        page.locator("#language").click()
        expect(page.locator("#calls [role=status]")).to_have_text("No call has these words")


def test_another_language_leaves_the_form_and_the_answer(chromium: Browser, demo: Server) -> None:
    """All that was written was lost, and a stream ended."""
    with showing_docs(chromium, demo.url, "get_klines") as (page, _):
        limit = page.locator("#call label", has_text="limit")
        limit.locator("input").fill("3")
        page.locator("#call form .primary").click()
        expect(page.locator(".d-state").first).to_contain_text("characters", timeout=PATIENCE_MS)
        page.locator("#language").click()
        expect(page.locator("#call h2")).to_contain_text("Прошлые свечи")
        expect(page.locator(".d-state").first).to_contain_text("знаков")
        expect(limit).to_contain_text("по умолчанию 500")
        expect(limit.locator("input")).to_have_value("3")
        expect(page.locator(".d-out pre").nth(1)).to_contain_text("candles")
        assert "Свечи" not in page.title()
        assert "свечи" in page.title()


def test_a_way_leads_back_to_the_page(chromium: Browser, demo: Server) -> None:
    """By a link that says so."""
    with showing_docs(chromium, demo.url) as (page, _):
        page.get_by_role("link", name="To the page").click()
        expect(page.locator("#tab-market")).to_be_visible(timeout=PATIENCE_MS)


def test_all_wrong_parameters_are_shown(chromium: Browser, demo: Server) -> None:
    """The answer named the first one alone."""
    with showing_docs(chromium, demo.url, "get_klines") as (page, _):
        page.locator("#call label", has_text="limit").locator("input").fill("0")
        page.locator("#call label", has_text="end").locator("input").fill("x")
        page.locator("#call form .primary").click()
        answer = page.locator(".d-out pre").nth(1)
        expect(answer).to_contain_text('"field": "limit"', timeout=PATIENCE_MS)
        expect(answer).to_contain_text('"field": "end"')


def test_an_answer_keeps_its_digits(chromium: Browser, demo: Server) -> None:
    """It is spread over lines, and no number is read."""
    with showing_docs(chromium, demo.url, "get_klines") as (page, _):
        page.locator("#call form .primary").click()
        answer = page.locator(".d-out pre").nth(1)
        expect(answer).to_contain_text(re.compile(r'"open": \d+\.\d{8},\n'), timeout=PATIENCE_MS)
        json.loads(answer.text_content() or "")
        expect(page.locator(".d-state").first).to_contain_text("200")


def test_a_refusal_is_shown_as_it_came(chromium: Browser, demo: Server) -> None:
    """The problem document, and markup in it as text."""
    with showing_docs(chromium, demo.url, "get_klines") as (page, _):
        page.locator("#call label", has_text="symbol").locator("input").fill("<img src=x>")
        page.keyboard.press("Enter")
        expect(page.locator(".d-out")).to_contain_text("<IMG SRC=X>", timeout=PATIENCE_MS)
        expect(page.locator(".d-state").first).to_contain_text("400")
        assert page.locator("#call img").count() == 0


def test_events_come_live_and_stop(chromium: Browser, demo: Server) -> None:
    """The stream is over when the button says so, and when another call is shown."""
    with showing_docs(chromium, demo.url, "get_sse_trades") as (page, _):
        page.locator("#call form .primary").click()
        expect(page.locator(".d-events li").nth(2)).to_be_attached(timeout=PATIENCE_MS)
        expect(page.locator(".d-events")).to_contain_text('"trade_id":')
        page.keyboard.press("Enter")  # the button that stops it has the focus
        expect(page.locator(".d-state").first).to_have_text("Stopped.")
        page.locator("#call form .primary").click()
        expect(page.locator(".d-events li").first).to_be_attached(timeout=PATIENCE_MS)
        page.evaluate("location.hash = '#get_status'")
        expect(page.locator("#call h2")).to_have_text("State of the exchange connection")


def test_tokens_stay_in_the_tab_and_out_of_addresses(chromium: Browser, demo: Server) -> None:
    """Sent in a header, or as a subprotocol; a call that needs none gets none."""
    token = token_for(demo.folder, "--vip-days", "1")
    admin = demo.admin_token()
    with showing_docs(chromium, demo.url, "get_ws_signals") as (page, asked):
        sent: list[tuple[str, str]] = []
        page.on("request", lambda request: sent.append((request.url, request.headers.get("authorization", ""))))
        page.locator("#token-signals").fill(token)
        page.locator("#token-admin").fill(admin)
        page.locator("#call form .primary").click()
        expect(page.locator(".d-events")).to_contain_text('"type":"connected"', timeout=PATIENCE_MS)
        page.locator(".d-say button").click()
        expect(page.locator(".d-events")).to_contain_text('{"type":"pong"}', timeout=PATIENCE_MS)
        for call, header in (
            ("get_logs_today", f"Bearer {admin}"),
            ("get_signals", f"Bearer {token}"),
            ("get_prices", ""),
        ):
            page.evaluate("(call) => { location.hash = call; }", call)
            expect(page.locator("#call")).to_contain_text(call)
            page.locator("#call form .primary").click()
            expect(page.locator(".d-state").first).to_contain_text("200", timeout=PATIENCE_MS)
            assert sent[-1][1] == header
        kept = (
            page.evaluate("JSON.stringify({ ...localStorage }) + location.href") + page.locator(".d-curl").inner_text()
        )
        for secret in (token, admin):
            assert secret not in kept + "".join(asked)
        page.reload()
        expect(page.locator("#token-admin")).to_have_value(admin, timeout=PATIENCE_MS)


def test_a_refused_socket_says_its_close_code(chromium: Browser, demo: Server) -> None:
    """Without a token."""
    with showing_docs(chromium, demo.url, "get_ws_signals") as (page, _):
        page.locator("#call form .primary").click()
        expect(page.locator(".d-state").first).to_have_text("Closed: 1008 Unauthorized", timeout=PATIENCE_MS)


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: npm ci in tests/browser")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "language"), [(390, "ru"), (1280, "en")])
def test_axe_finds_nothing(chromium: Browser, demo: Server, scheme: str, width: int, language: str) -> None:
    """With an answer, an open example and a stream's messages on the page."""
    with showing_docs(chromium, demo.url, width=width, language=language, scheme=scheme) as (page, _):
        page.evaluate(AXE.read_text())
        for call in ("", "get_klines", "get_sse_stream", "post_signals", "get_ws_market"):
            page.evaluate("(call) => { location.hash = call; }", call)
            page.wait_for_timeout(300)
            for line in page.locator(".d-more summary").all()[:2]:
                line.click()
            assert page.evaluate(RUN_AXE) == [], call
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, call
