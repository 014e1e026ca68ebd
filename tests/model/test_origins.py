"""Web origins: what a setting may list, and which pages it then means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.model.origins import OriginList, parse_origin, parse_pattern


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("*", "*"),
        ("null", "null"),
        ("https://Example.com", "https://example.com"),
        ("https://example.com:443", "https://example.com"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://[0:0::1]:3000", "http://[::1]:3000"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://*.example.com", "https://*.example.com"),
        ("https://*.example.com:8443", "https://*.example.com:8443"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        ("file://", "file://"),
    ],
)
def test_an_entry_is_read_as_browsers_write_it(text: str, pattern: str) -> None:
    """Lower case, punycode, no default port; and a page of that origin is listed."""
    assert parse_pattern(text) == pattern
    if "*" not in pattern:
        assert pattern in OriginList([pattern])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "localhost:3000",
        "https://",
        "https://example.com/",
        "https://example.com/app",
        "https://example.com?x",
        "https://example.com#x",
        "https://user@example.com",
        "https://example.com:0",
        "https://example.com:99999",
        "https://example.com:",
        "https://*",
        "https://*.",
        "https://app*.example.com",
        "https://*.*.example.com",
        "http://*.192.0.2.1",
        "http://*.[::1]",
        "https://a b",
        "https://[::1",
        "://example.com",
        "https:example.com",
        "*.example.com",
        "https://exa\nmple.com",
    ],
)
def test_what_could_never_match_is_refused(text: str) -> None:
    """A path, a blank, no scheme: a browser sends none of them."""
    with pytest.raises(ValueError, match=r"(?s).*"):
        parse_pattern(text)


@pytest.mark.parametrize(
    ("origin", "is_listed"),
    [
        ("https://app.example.com", True),
        ("https://a.b.example.com", True),
        ("https://APP.example.com", True),
        ("https://example.com", False),
        ("https://evilexample.com", False),
        ("https://.example.com", False),
        ("http://app.example.com", False),
        ("https://app.example.com:8443", False),
        ("https://app.example.com.evil.example", False),
        ("https://evil.example/.example.com", False),
        ("https://evil.example?.example.com", False),
        ("https://evil.example#.example.com", False),
        ("https://evil.example\\.example.com", False),
        ("https://app.example.com@evil.example", False),
        ("https://a@app.example.com", False),
        ("null", True),
        ("capacitor://localhost", True),
        ("capacitor://localhost:80", False),
        ("", False),
        ("*", False),
    ],
)
def test_which_pages_a_list_means(origin: str, is_listed: bool) -> None:  # noqa: FBT001 - a table
    """One label or more below a name, and nothing that only looks like it."""
    listed = OriginList(map(parse_pattern, ["https://*.example.com", "null", "capacitor://localhost"]))
    assert (origin in listed) is is_listed


def test_any_page_is_no_page_by_its_name() -> None:
    """``*`` lets every page read; who may control is named."""
    listed = OriginList(["*"])
    assert listed.is_any
    assert "https://example.com" not in listed


@given(st.text(max_size=40) | st.from_regex(r"https?://[\[\]a-z0-9.:@/*-]{0,30}"))
def test_nothing_that_is_sent_fails(text: str) -> None:
    """An origin is a header: anything may be in it; what is read is read the same again."""
    assert (text in OriginList(["https://*.example.com", "https://a.example"])) in (True, False)
    try:
        origin = parse_origin(text)
    except ValueError:
        return
    assert parse_origin(str(origin)) == origin
