"""``Forwarded``, as RFC 7239 has it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.model.forwarded import parse_forwarded


@pytest.mark.parametrize(
    ("lines", "elements"),
    [
        ([], []),
        ([""], []),
        (["for=192.0.2.43"], [{"for": "192.0.2.43"}]),
        (["for=192.0.2.43, for=198.51.100.17"], [{"for": "192.0.2.43"}, {"for": "198.51.100.17"}]),
        (["for=192.0.2.43", "for=198.51.100.17"], [{"for": "192.0.2.43"}, {"for": "198.51.100.17"}]),
        (['For="[2001:db8:cafe::17]:4711"'], [{"for": "[2001:db8:cafe::17]:4711"}]),
        (
            ["for=192.0.2.60;proto=http; by=203.0.113.43 ;Host=a.example:80"],
            [{"for": "192.0.2.60", "proto": "http", "by": "203.0.113.43", "host": "a.example:80"}],
        ),
        (['for="_a,b;\\"c"'], [{"for": '_a,b;"c'}]),
        (["", ",, for=_hidden ,;"], [{"for": "_hidden"}]),
        (["for=192.0.2.1:4711"], [{"for": "192.0.2.1:4711"}]),
        (['for=""'], [{"for": ""}]),
    ],
)
def test_elements_are_read_in_their_order(lines: list[str], elements: list[dict[str, str]]) -> None:
    """Also quoted, with commas in quotes, in several lines, and with empty elements."""
    assert parse_forwarded(lines) == elements


@pytest.mark.parametrize(
    "lines",
    [
        ["192.0.2.1"],
        ["for=a b"],
        ["for=a for=b"],
        ["for=a;for=b"],
        ["for = a"],
        ["for="],
        ['for="a', "for=192.0.2.1"],
        ['x="', 'for="[2001:db8::1]:4711"'],
        ['for="a"b'],
        ['for=a"b"'],
        ["for=a\\"],
    ],
)
def test_what_may_be_understood_in_two_ways_is_refused(lines: list[str]) -> None:
    """A client's open quote would swallow what its proxy says behind it."""
    with pytest.raises(ValueError):
        parse_forwarded(lines)


@given(st.lists(st.text('for=";, \\ab[]:.\t1'), max_size=3))
def test_what_a_client_wrote_never_changes_what_its_proxy_says(written: list[str]) -> None:
    """The last element is the proxy's own, or nothing is believed."""
    for own in ("for=192.0.2.1", 'for="[2001:db8::1]:4711"'):
        try:
            elements = parse_forwarded([*written, own])
        except ValueError:
            continue
        assert elements[-1] == parse_forwarded([own])[0]
