"""Which unknown parameters are mistakes, and which are somebody else's."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import komas.web
from komas.web import openapi
from komas.web.query import SHOWN, meant, shown, unknown

PARAMETERS = openapi.query_parameters()
ALL = sorted({name for names in PARAMETERS.values() for name in names})
TRADES = PARAMETERS["/api/ws/sse/trades", "GET"]
PRICES = PARAMETERS["/api/ws/sse/prices", "GET"]
SIGNALS = PARAMETERS["/api/signals", "GET"]

# What browsers, proxies, polyfills, trackers and libraries put into a query without being asked.
FOREIGN = """
_ _t t ts v r x y id rnd rand random cb cache cachebust cacheBuster nocache no_cache timestamp time utm_source
utm_medium utm_campaign utm_term utm_content fbclid gclid ref source session sid access_token auth key api_key
apikey callback jsonp format lang locale debug version client client_id user user_id transport EIO b64
withCredentials heartbeat retry heartbeatTimeout
"""


@pytest.mark.parametrize("name", FOREIGN.split())
def test_what_others_add_is_no_mistake(name: str) -> None:
    """On any endpoint."""
    assert {path: meant(name, known) for path, known in PARAMETERS.items() if meant(name, known)} == {}


@pytest.mark.parametrize(
    ("known", "name", "right"),
    [
        (TRADES, "agregate", "aggregate"),
        (TRADES, "Aggregate", "aggregate"),
        (TRADES, "agg_regate", "aggregate"),
        (TRADES, "symbols", "symbol"),
        (TRADES, "last_event", "last_event_id"),
        (PRICES, "symbol", "symbols"),
        (PRICES, "streamType", "stream_type"),
        (PRICES, "type", "stream_type"),
        (PRICES, "rate", "max_rate"),
        (PRICES, "maxrate", "max_rate"),
        (PRICES, "SYMBOLS", "symbols"),
        (PARAMETERS["/api/ws/sse/klines", "GET"], "intervall", "interval"),
        (PARAMETERS["/api/ws/sse/klines", "GET"], "interva", "interval"),
        (PARAMETERS["/api/ws/depth", "GET"], "limits", "limit"),
        (PARAMETERS["/api/ws/depth", "GET"], "lim", "limit"),
        (SIGNALS, "since", "since_id"),
        (SIGNALS, "sinceId", "since_id"),
        (SIGNALS, "type", "signal_type"),
        (PARAMETERS["/api/logs/today", "GET"], "levels", "level"),
    ],
)
def test_what_was_meant_is_found(known: frozenset[str], name: str, right: str) -> None:
    """Misspelt, in another case, half of it."""
    assert unknown([name], known) == [name]
    assert meant(name, known) == right


@pytest.mark.parametrize("name", ["lastEventId", "lastEventID", "LastEventId", "Last-Event-ID", "last-event-id"])
def test_every_spelling_of_a_position_is_known_where_one_counts(name: str) -> None:
    """And no mistake where a polyfill adds it to an endpoint without positions."""
    assert unknown([name], TRADES) == []
    assert unknown([name], PRICES) == [name]
    assert meant(name, PRICES) is None


def test_what_an_answer_shows_of_names_is_bounded() -> None:
    """They are the client's own words."""
    assert shown(["a" * 1000]) == ("a" * SHOWN,)
    assert len(shown(str(number) for number in range(1000))) == SHOWN
    assert meant("symbol" * 10_000, PRICES) is None


def test_what_the_views_read_is_described_and_the_reverse() -> None:
    """So that the one table of parameters, the description, is true of every endpoint."""
    files = Path(komas.web.__path__[0]).rglob("*.py")
    read = {name for file in files for node in ast.walk(ast.parse(file.read_text("utf-8"))) for name in _names(node)}
    assert read | {"since", "since_id", "last_event_id"} == set(ALL)  # these are read in a loop, or in many spellings


def _names(node: ast.AST) -> list[str]:
    """The parameter that an expression reads: ``query.get("name")`` and the like."""
    match node:
        case ast.Call(func=ast.Attribute(value=owner, attr="get"), args=[ast.Constant(value=str(name)), *_]):
            return [name] if ast.unparse(owner) in ("query", "request.args", "websocket.args") else []
    return []
