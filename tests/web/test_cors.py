"""What web pages of other origins may do: one table."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing

from komas.settings import Settings
from komas.web import cors
from komas.web.cors import Page
from tests.web.harness import ADMIN, web_harness

APP, OTHER = "https://app.example", "https://other.example"
LISTING, ANY, BOTH = (APP, "null"), ("*",), ("*", APP)
READ, CHANGE, PROTECTED = ("GET", "/api/ws/prices"), ("POST", "/api/ws/quick/stop"), ("GET", "/api/logs/today")


@pytest.mark.parametrize("call", [READ, CHANGE, PROTECTED, ("GET", "/api/nothing"), ("GET", "/api/ws/sse/prices")])
@pytest.mark.parametrize(
    ("origins", "origin", "allowed", "with_credentials"),
    [
        (LISTING, APP, APP, True),
        (LISTING, "null", "null", False),
        (LISTING, OTHER, None, False),
        (LISTING, None, None, False),
        (ANY, APP, "*", False),
        (ANY, "null", "*", False),
        (ANY, None, "*", False),
        (BOTH, APP, APP, True),
        (BOTH, OTHER, "*", False),
    ],
)
async def test_every_answer_says_who_may_read_it(
    origins: tuple[str, ...],
    origin: str | None,
    allowed: str | None,
    with_credentials: bool,  # noqa: FBT001 - a table
    call: tuple[str, str],
    autojump_clock: trio.testing.MockClock,
    tmp_path: Path,
) -> None:
    """Errors too; to a cache, that it depends on the page; what changes something, or is protected, to listed pages."""
    headers = [("Host", "localhost"), ADMIN, *([] if origin is None else [("Origin", origin)])]
    async with web_harness(tmp_path, Settings(cors_origins=origins)) as harness:
        answer = await harness.call(*call, headers=headers)
    if allowed == "*" and call in (CHANGE, PROTECTED):
        allowed = None
    assert answer.headers.get("access-control-allow-origin") == allowed
    assert answer.headers.get("access-control-allow-credentials") == ("true" if with_credentials else None)
    assert answer.headers.get("access-control-expose-headers") == ("Retry-After" if allowed else None)
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    ("origins", "origin", "methods", "headers"),
    [
        (
            LISTING,
            APP,
            "GET POST PATCH DELETE",
            "Authorization Content-Type Idempotency-Key Cache-Control Last-Event-ID",
        ),
        (BOTH, APP, "GET POST PATCH DELETE", "Authorization Content-Type Idempotency-Key Cache-Control Last-Event-ID"),
        (ANY, APP, "GET", "Cache-Control Last-Event-ID"),
        (LISTING, OTHER, "", ""),
    ],
)
async def test_a_browser_that_asks_first_is_told(
    origins: tuple[str, ...],
    origin: str,
    methods: str,
    headers: str,
    autojump_clock: trio.testing.MockClock,
    tmp_path: Path,
) -> None:
    """What EventSource polyfills send is allowed to every page that may read; there is no content, nor its length."""

    def words(name: str) -> set[str]:
        return set(answer.headers.get(name, "").replace(",", "").split())

    async with web_harness(tmp_path, Settings(cors_origins=origins)) as harness:
        answer = await harness.call(
            "OPTIONS",
            "/api/ws/sse/prices",
            headers=[("Host", "localhost"), ("Origin", origin), ("Access-Control-Request-Method", "GET")],
        )
    assert (answer.status, answer.body) == (204, b"")
    assert words("access-control-allow-methods") - {"HEAD", "OPTIONS"} == set(methods.split())
    assert words("access-control-allow-headers") == set(headers.split())
    assert answer.headers["vary"] == "Origin"
    assert not {"content-length", "content-type"} & set(answer.headers)


def test_the_documents_show_the_table() -> None:
    """Each kind of page has its row."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    rows = [line.split("|") for line in text.splitlines() if line.startswith(("| listed", "| any other"))]
    assert len(rows) == len(Page)
    for row, page in zip(rows, Page, strict=True):
        answers = [cors.headers_of(page, APP, reads=reads) for reads in (True, False)]
        for cell, name, answer in (
            (row[2], "Access-Control-Allow-Origin", answers[0]),
            (row[3], "Access-Control-Allow-Origin", answers[1]),
            (row[4], "Access-Control-Allow-Credentials", answers[0]),
        ):
            assert cell.strip().startswith("yes" if name in answer else "no")


async def test_options_of_a_client_that_is_no_page_says_what_may_be_called(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """It was answered as a browser's preflight, with headers that only such an answer may have."""
    async with web_harness(tmp_path) as harness:
        for target, methods in (
            ("/api/ws/status", "GET, HEAD, OPTIONS"),
            ("/api/signals", "GET, HEAD, OPTIONS, POST"),
            ("/api/vip/123", "DELETE, GET, HEAD, OPTIONS, POST"),
        ):
            answer = await harness.call("OPTIONS", target)
            assert (answer.status, answer.headers["allow"]) == (204, methods)
            assert not any(name.startswith("access-control-allow-m") for name in answer.headers)
