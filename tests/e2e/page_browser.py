"""The page in a tab of Chromium, watched for whatever it must never do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

PATIENCE_MS = 20_000
LIVE = re.compile("Live|\\u041d\\u0430 \\u0441\\u0432\\u044f\\u0437\\u0438")  # in either language

WATCH_POLICY = """window.breaches = [];
document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI, sourceFile, lineNumber }) => {
  window.breaches.push(`${violatedDirective} ${blockedURI} ${sourceFile}:${lineNumber}`);
});"""


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """One for all tests."""
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """Debian's browser."""
    browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
    yield browser
    browser.close()


class Tabs:
    """Tabs of one user, and what went wrong in them."""

    def __init__(self, context: BrowserContext, url: str, tokens: dict[str, str]) -> None:
        self.context = context
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self._url = url
        self._tokens = tokens

    def open(self, place: str = "") -> Page:
        """The page in a new tab, once it is live."""
        page = self.context.new_page()
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._look_at(request.url))
        page.goto(self._url + place)
        for name, value in self._tokens.items():
            page.evaluate(
                "async ([name, value]) => (await import('./static/store.js')).tokens.set(name, value)", [name, value]
            )
        if self._tokens:
            page.reload()
        expect(page.locator(".health b")).to_have_text(LIVE, timeout=PATIENCE_MS)
        expect(page.locator("#theme")).to_have_attribute(
            "aria-label", re.compile("."), timeout=PATIENCE_MS
        )  # keys work
        return page

    def _look_at(self, url: str) -> None:
        if not url.startswith((f"{origin(self._url)}/", "data:", "blob:")):
            self.foreign.append(url)


@contextmanager
def showing_tabs(
    chromium: Browser,
    url: str,
    *,
    size: tuple[int, int] = (1440, 900),
    settings: dict[str, object] | None = None,
    tokens: dict[str, str] | None = None,
    scheme: str = "light",
    motion: str = "no-preference",
    faults: bool = False,
) -> Iterator[Tabs]:
    """Tabs with the page; fails on breaches of its policy and foreign requests, and without faults on errors."""
    context = chromium.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce" if motion == "reduce" else "no-preference",
        locale="en-GB",
    )
    for name, value in {"language": "en", **(settings or {})}.items():
        context.add_init_script(f"localStorage.setItem('komas.{name}', JSON.stringify({json.dumps(value)}))")
    context.add_init_script(WATCH_POLICY)
    try:
        tabs = Tabs(context, url, tokens or {})
        yield tabs
        assert [page.evaluate("window.breaches") for page in context.pages if page.evaluate("window.breaches")] == []
        assert tabs.foreign == []
        assert faults or tabs.errors == []
    finally:
        context.close()


@contextmanager
def showing_page(
    chromium: Browser,
    url: str,
    *,
    size: tuple[int, int] = (1440, 900),
    settings: dict[str, object] | None = None,
    tokens: dict[str, str] | None = None,
    scheme: str = "light",
    motion: str = "no-preference",
    faults: bool = False,
) -> Iterator[Page]:
    """The page in a tab of its own; fails as ``showing_tabs`` does."""
    with showing_tabs(
        chromium, url, size=size, settings=settings, tokens=tokens, scheme=scheme, motion=motion, faults=faults
    ) as tabs:
        yield tabs.open()


def origin(url: str) -> str:
    """Scheme, host and port."""
    return "/".join(url.split("/")[:3])
