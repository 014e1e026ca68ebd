"""Where a token may be, and that there is one."""

from __future__ import annotations

import pytest
from werkzeug.datastructures import Headers

from komas.errors import Unauthorized
from komas.web.bearer import bearer_of, token_of


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", ""), ("abc", ""), ("", ""), ("Bearer", "")],
)
def test_a_header_brings_a_bearer_token(header: str, token: str) -> None:
    """The scheme in any case."""
    assert bearer_of(Headers({"Authorization": header})) == token


@pytest.mark.parametrize(
    ("header", "subprotocols", "query"),
    [
        ("Bearer t", [], None),
        ("", ["komas.signals", "bearer.t"], None),
        ("", [], "t"),
        ("Bearer t", ["komas.signals", "bearer.t"], "t"),
    ],
)
def test_a_handshake_brings_its_token_in_one_of_three_places(
    header: str, subprotocols: list[str], query: str | None
) -> None:
    """Or the same one in several."""
    assert token_of(Headers({"Authorization": header}), subprotocols, query) == "t"


@pytest.mark.parametrize(
    ("header", "subprotocols", "query"),
    [
        ("", [], None),
        ("", [], ""),
        ("", ["komas.signals"], None),
        ("", ["komas.signals", "bearer."], None),
        ("Bearer t", [], "u"),
        ("", ["bearer.t", "bearer.u"], None),
    ],
)
def test_no_token_and_several_are_no_token(header: str, subprotocols: list[str], query: str | None) -> None:
    """Nobody guesses which of them counts."""
    with pytest.raises(Unauthorized):
        token_of(Headers({"Authorization": header}), subprotocols, query)
