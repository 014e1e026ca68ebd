"""The API's description, OpenAPI 3.1: built from the same catalogues that the views check against.

It is as strict as the server: what a schema allows is accepted, what it does not is refused, and every status that an
answer can have is listed. What no schema can say is which symbols the exchange lists. Schemathesis holds both against
each other (docs/conformance.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Final, Literal

from komas.model.kinds import KINDS, Kind, kinds
from komas.model.market import Gap
from komas.model.signal_filter import COIN_LENGTH
from komas.model.signals import MOST_DAYS
from komas.model.streams import INTERVALS, SYMBOL_LENGTH
from komas.signals.tokens import SUBJECT_LENGTH
from komas.signals.validation import DATA_BYTES, DEPTH, DIGITS, EXPONENT, IDEMPOTENCY_LENGTH, KEY_LENGTH
from komas.web.operations import TAGS, described
from komas.web.params import ALL, LARGEST, MAX_RATE, MIN_RATE
from komas.web.problems import Problem
from komas.web.routes.admin import NewestSignalsBody, ReadersBody, SessionsBody, VipsBody
from komas.web.routes.control import StatusBody, StreamRow
from komas.web.routes.history import CandlesBody, SymbolsBody, TradesBody
from komas.web.routes.signals_rest import SignalsBody, VipBody
from komas.web.schemas import MOMENT, Schema, generated
from komas.web.schemas import reference as _ref

_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer"}
_FLAG: Final[Schema] = {"type": "boolean"}
_ID: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": LARGEST}
_NAME: Final[Schema] = {"maxLength": KEY_LENGTH}
_DATA: Final = {"coin_name": "NB", "position": "SHORT", "spread": 8.84}
LARGEST_NUMBER: Final = 10**EXPONENT
SMALLEST_NUMBER: Final = float(f"1e-{EXPONENT}")


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _request(**properties: Schema) -> Schema:
    return {**_object(**properties), "additionalProperties": False}


def _optional(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _subscription(symbols: Schema, types: Sequence[str]) -> Schema:
    """A body of subscribe and unsubscribe; ``null`` is a default that was not left out."""
    options: dict[str, Schema] = {
        "stream_type": {"enum": [*types, None], "default": "ticker"},
        "interval": {"enum": [*INTERVALS, None], "default": "1m", "description": "of kline alone"},
    }
    return {
        "type": "object",
        "required": ["symbols"],
        "additionalProperties": False,
        "properties": {"symbols": symbols, **options},
    }


def _value(levels: int) -> Schema:
    """What a signal's data may hold, at most so many levels deep."""
    nested: list[Schema] = [{"type": "array", "maxItems": 0}, {"type": "object", "maxProperties": 0}]
    if levels > 1:
        inner = _ref(f"SignalValue{levels - 1}")
        nested = [
            {"type": "array", "items": inner},
            {"type": "object", "propertyNames": _NAME, "additionalProperties": inner},
        ]
    return {"anyOf": [{"type": ["string", "boolean", "null"]}, _ref("SignalNumber"), *nested]}


# No space, nothing that Unicode 15 calls a control, a format or private, and not what a path that is not UTF-8 becomes.
_UNPRINTABLE: Final = (
    r"\x00-\x20\x7f-\xa0\xad\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ue000-\uf8ff\ufeff"
    r"\ufff0-\ufffb\ufffd-\uffff"
)
_PRINTABLE: Final = f"[^{_UNPRINTABLE}]"
_IN_LIST: Final = f"[^,{_UNPRINTABLE}]"
_MARKETS: Final = ("spot", "usd_m")
_SUFFIXES: Final = "|".join(
    spec.suffix + (f"({'|'.join(INTERVALS)})" if spec.has_interval else "") for spec in KINDS.values()
)
# What answers hold; all else that they are made of comes with it.
_ANSWERS: Final = (
    *(spec.event for spec in KINDS.values()),
    CandlesBody,
    Gap,
    NewestSignalsBody,
    Problem,
    ReadersBody,
    SessionsBody,
    SignalsBody,
    StatusBody,
    StreamRow,
    SymbolsBody,
    TradesBody,
    VipBody,
    VipsBody,
)

_SCHEMAS: Final[dict[str, Schema]] = {
    "Task": _object(
        name={"type": "string", "description": "of the function that runs, or what it is for"},
        count={"type": "integer", "description": "so many tasks of this name run beside each other"},
        tasks={"type": "array", "items": {"$ref": "#/components/schemas/Task"}},
    ),
    "Prices": _object(
        count=_COUNT,
        prices={"type": "object", "additionalProperties": {"anyOf": [_ref("Ticker"), _ref("MiniTicker")]}},
        timestamp=MOMENT,
    ),
    "Streams": _object(count=_COUNT, streams={"type": "array", "items": _ref("StreamRow")}),
    "Symbol": {
        "type": "string",
        # Letters and digits of any script; without \p{L}, which many validators do not know.
        "pattern": rf"^[^\x00-/:-@\[-`{{-\xbf]{{1,{SYMBOL_LENGTH}}}$",
        "description": "in any case; one that the exchange lists",
        "examples": ["BTCUSDT"],
    },
    "StreamName": {
        "type": "string",
        "pattern": rf"^[^\x00-/:-@\[-`{{-\xbf]{{1,{SYMBOL_LENGTH}}}@({_SUFFIXES})$",
        "description": "a stream in the exchange's own words, its symbol in any case",
        "examples": ["btcusdt@trade", "ethusdt@kline_1m"],
    },
    "StreamChange": {
        "type": "object",
        "additionalProperties": False,
        "properties": {"subscribe": _ref("StreamNames"), "unsubscribe": _ref("StreamNames")},
        "examples": [{"subscribe": ["btcusdt@trade"], "unsubscribe": ["ethusdt@ticker"]}],
    },
    "SubscribeRequest": {
        "anyOf": [
            _subscription(_ref("Symbols"), list(Kind)),
            _subscription(
                {"const": [ALL], "description": "every symbol that trades"}, list(kinds(has_all_symbols=True))
            ),
        ],
        "examples": [
            {"symbols": ["BTCUSDT", "ETHUSDT"]},
            {"symbols": ["BTCUSDT"], "stream_type": "kline", "interval": "1h"},
            {"symbols": [ALL], "stream_type": "mini_ticker"},
        ],
    },
    "SignalChanges": {**_request(data=_ref("SignalData")), "examples": [{"data": {"spread": 9.12}}]},
    "SignalData": {
        "type": "object",
        "minProperties": 1,
        "propertyNames": _NAME,
        "properties": {"coin_name": _TEXT, "position": _TEXT, "spread": _optional(_ref("SignalNumber"))},
        "patternProperties": {"_price$": _optional(_ref("SignalNumber"))},
        "additionalProperties": _ref(f"SignalValue{DEPTH}"),
        "description": "`id` and `created_at` are the server's; numbers keep their digits. "
        f"At most {DATA_BYTES // 1024} KiB",
        "examples": [_DATA],
    },
    **{f"SignalValue{levels}": _value(levels) for levels in range(1, DEPTH + 1)},
    "SignalNumber": {
        "type": "number",
        "exclusiveMinimum": -LARGEST_NUMBER,
        "exclusiveMaximum": LARGEST_NUMBER,
        "not": {"exclusiveMinimum": -SMALLEST_NUMBER, "exclusiveMaximum": SMALLEST_NUMBER, "not": {"const": 0}},
        "description": f"of at most {DIGITS} digits",
    },
    "CoinName": {
        "type": "string",
        "pattern": rf"^{_IN_LIST}(({_IN_LIST}| ){{0,{COIN_LENGTH - 2}}}{_IN_LIST})?$",
        "description": "as in a signal's `coin_name`; in any case",
        "examples": ["NB"],
    },
    "Days": {**_request(days={"type": "integer", "minimum": 1, "maximum": MOST_DAYS}), "examples": [{"days": 30}]},
}

_LOGS: Final = _object(count=_COUNT, records={"type": "array", "items": {"type": "object"}})
_EVENTS: Final = (
    "`retry:` in the first event, then what is already known, then events. Data events have no name: "
    '`{"type", "data", "timestamp"}`, and `"backfilled": true` where a fact was missed and asked for. Named notices: '
    '`status` `{"state", "reason"?, "retry_in_s"?, "stream"?}`, `gap` `{"stream", "from", "to", "filled", "reason"?}`, '
    '`health` `{"stream", "health", "reason"}`, `lagged` `{"dropped"}`, `busy` `{"reason"}`.'
)


def _answer(schema: Schema, media_type: str = "application/json") -> Schema:
    return {"description": "", "content": {media_type: {"schema": schema}}}


def _problem(what: str) -> Schema:
    return {"description": what, "content": {"application/problem+json": {"schema": _ref("Problem")}}}


def _query(name: str, schema: Schema, *, required: bool = False, meaning: str = "") -> Schema:
    return {"name": name, "in": "query", "required": required, "description": meaning, "schema": schema}


def _path(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


_STORE: Final[Schema] = {"503": _problem("the store is unavailable; try again")}


_TOO_MANY: Final[Schema] = {
    "429": _problem("too many requests, or streams, of this address; or too many in all")
    | {"headers": {"Retry-After": {"description": "seconds until it may try again", "schema": {"type": "integer"}}}}
}
_SSE: Final = "text/event-stream"  # which is told `busy` instead


def _call(
    summary: str,
    schema: Schema,
    *,
    query: tuple[Schema, ...] = (),
    body: str | None = None,
    controls: Literal["market", "all", ""] = "",
    upstream: bool = False,
    media_type: str = "application/json",
    parameters: tuple[Schema, ...] = (),
    token: str = "",
    status: int = 200,
    others: Schema | None = None,
) -> Schema:
    responses: Schema = {
        str(status): _answer(schema, media_type),
        # Also of a call without parameters: any name in a query may be there twice.
        "400": _problem("what was sent is wrong, field by field"),
    } | ({} if media_type == _SSE else _TOO_MANY)
    if body:
        responses["413"] = _problem("the body is too large")
    if controls:
        responses["401"] = _problem("the admin token is missing or wrong")
    if upstream:
        responses |= {
            **({"409": _problem("no room for more streams")} if controls else {}),
            "502": _problem("the exchange refused, in its own words"),
            "503": _problem("the server is shutting down"),
            "504": _problem("the exchange did not answer in time"),
        }
    if token:
        responses |= {
            "401": _problem("no valid access token"),
            "403": _problem(token),
            **_STORE,
        }
    responses |= others or {}
    call: Schema = {"summary": summary, "responses": responses}
    if query or parameters:
        call["parameters"] = [*query, *parameters]
    if body:
        call["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    if controls:
        call["security"] = [{}, {"admin": []}] if controls == "market" else [{"admin": []}]
    if token:
        call["security"] = [{"token": []}]
    return call


def _vip_call(summary: str, body: str | None = None) -> Schema:
    user = _path(
        "user_id",
        {
            "type": "string",
            "pattern": rf"^{_PRINTABLE}{{0,{SUBJECT_LENGTH - 1}}}(?!/){_PRINTABLE}$",
            "description": "printable characters without spaces; the last is no slash",
            "examples": ["trader-7"],
        },
    )
    return _call(summary, _ref("VipBody"), body=body, controls="all", parameters=(user,), others=_STORE)


_USER: Final[Schema] = {"type": "string", "pattern": rf"^{_PRINTABLE}{{1,{SUBJECT_LENGTH}}}$"}
_LIST: Final[Schema] = {"style": "form", "explode": False}
_SYMBOLS: Final = {**_query("symbols", _ref("Symbols"), required=True, meaning="symbols with commas"), **_LIST}
_SYMBOL: Final = _query("symbol", _ref("Symbol"), required=True)
_SOME_SYMBOLS: Final = {
    **_query("symbols", _ref("Symbols"), meaning="symbols with commas; all, or the default list, without it"),
    **_LIST,
}
_INTERVAL: Final = _query("interval", {"enum": list(INTERVALS), "default": "1m"})
_RATE: Final[Schema] = {"type": "number", "minimum": MIN_RATE, "maximum": MAX_RATE}
_RESUME: Final[tuple[Schema, ...]] = (
    {"name": "Last-Event-ID", "in": "header", "required": False, "description": "go on after it", "schema": _TEXT},
    _query(
        "last_event_id",
        _TEXT,
        meaning="the same, for clients that cannot set a header; lastEventId and Last-Event-ID mean it, too",
    ),
)
_PAST: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 1000, "default": 0}
_FILTER: Final[tuple[Schema, ...]] = (
    {**_query("signal_type", _ref("SignalTypes"), meaning="types with commas; all without it"), **_LIST},
    {
        **_query(
            "coin_name",
            _ref("CoinNames"),
            meaning="coins with commas, in any case; all without it, also signals that have none",
        ),
        **_LIST,
    },
)
_KEY: Final[Schema] = {"type": "string", "pattern": rf"^[!-~](?:[ -~]{{0,{IDEMPOTENCY_LENGTH - 2}}}[!-~])?$"}

_UNCHANGED: Final[Schema] = {"304": {"description": "what If-None-Match names is still the same"}}
_PATHS: Final[dict[str, dict[str, Schema]]] = {
    "/": {"get": _call("A page with live prices", _TEXT, media_type="text/html", others=_UNCHANGED)},
    "/static/{name}": {
        "get": _call(
            "A file of the page, or of the library for front ends (komas.js, komas.d.ts, react.js)",
            _TEXT,
            media_type="text/javascript",
            parameters=(_path("name", {**_TEXT, "examples": ["komas.js"]}),),
            others={**_UNCHANGED, "404": _problem("there is no such file")},
        )
    },
    "/api/ws/status": {"get": _call("State of the exchange connection", _ref("StatusBody"))},
    "/api/ws/connect": {"post": _call("Connect to the exchange", _ref("StatusBody"), controls="market", upstream=True)},
    "/api/ws/disconnect": {"post": _call("Disconnect from the exchange", _ref("StatusBody"), controls="market")},
    "/api/ws/rotate": {
        "post": _call(
            "Replace every exchange connection, without losing an event", _object(replacing=_COUNT), controls="market"
        )
    },
    "/api/ws/subscribe": {
        "post": _call(
            "Pin streams: they stay open until unsubscribed",
            _object(subscribed={"type": "array", "items": _TEXT}, streams=_COUNT),
            body="SubscribeRequest",
            controls="market",
            upstream=True,
        )
    },
    "/api/ws/unsubscribe": {
        "post": _call(
            "Unpin streams; those that SSE clients use stay open for them",
            _object(unsubscribed={"type": "array", "items": _TEXT}, streams=_COUNT),
            body="SubscribeRequest",
            controls="market",
        )
    },
    "/api/ws/prices": {"get": _call("Latest prices", _ref("Prices"), query=(_SOME_SYMBOLS,))},
    "/api/ws/streams": {"get": _call("Open streams and their health", _ref("Streams"))},
    "/api/ws/quick/start-prices": {
        "post": _call(
            "Connect and pin tickers",
            _object(status={"const": "started"}, symbols={"type": "array", "items": _TEXT}, sse_url=_TEXT),
            query=(_SOME_SYMBOLS,),
            controls="market",
            upstream=True,
        )
    },
    "/api/ws/quick/stop": {
        "post": _call("Unpin everything and disconnect", _object(status={"const": "stopped"}), controls="market")
    },
    "/api/ws/sse/prices": {
        "get": {
            **_call(
                "Prices of some kind as Server-Sent Events",
                _TEXT,
                query=(
                    _SYMBOLS,
                    _query(
                        "stream_type",
                        {"enum": [str(kind) for kind in kinds(is_price=True)], "default": "ticker"},
                    ),
                    _query("max_rate", _RATE, meaning="events a second for each symbol, at most"),
                ),
                media_type=_SSE,
            ),
            "description": _EVENTS,
        }
    },
    "/api/ws/klines": {
        "get": _call(
            "Past candles, oldest first; the last one may be open",
            _ref("CandlesBody"),
            query=(
                _SYMBOL,
                _INTERVAL,
                _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 500}),
                _query("end", _ID, meaning="those that opened then or before, milliseconds since the epoch"),
            ),
            upstream=True,
        )
    },
    "/api/ws/trades": {
        "get": _call(
            "The last trades, oldest first",
            _ref("TradesBody"),
            query=(
                _SYMBOL,
                _query("aggregate", {"type": "boolean", "default": False}),
                _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 200}),
            ),
            upstream=True,
        )
    },
    "/api/ws/symbols": {
        "get": _call(
            "Symbols that a text may mean, best match first; without one, those that are traded most",
            _ref("SymbolsBody"),
            query=(
                _query("query", {"type": "string", "maxLength": 40}),
                _query("market", {"enum": list(_MARKETS), "default": _MARKETS[0]}),
                _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}),
            ),
        )
    },
    "/api/ws/sse/stream": {
        "get": {
            **_call(
                "Many streams as Server-Sent Events of one connection, which can be changed",
                _TEXT,
                query=(
                    {
                        **_query("streams", _ref("StreamNames"), meaning="with slashes or commas; none at first"),
                        **_LIST,
                    },
                    _query("history", _PAST, meaning="past candles before the live ones of each stream of candles"),
                    _query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
                    _query("max_rate", _RATE, meaning="times a second at which it is written to, at most"),
                ),
                media_type=_SSE,
                parameters=_RESUME,
            ),
            "description": f"{_EVENTS} The first is `event: open`, with the connection's name for changes; each has "
            "its `stream`, and one id is a place among the events of all of them.",
        }
    },
    "/api/ws/sse/stream/{connection}": {
        "post": _call(
            "Read more streams over an open connection, and some no more; who knows its name needs no token",
            _object(streams={"type": "array", "items": _ref("StreamName")}),
            body="StreamChange",
            parameters=(_path("connection", _TEXT),),
            others={"404": _problem("there is no such connection; it may have been cut")},
        )
    },
    "/api/ws/sse/klines": {
        "get": {
            **_call(
                "Candles as Server-Sent Events",
                _TEXT,
                query=(_SYMBOL, _INTERVAL, _query("history", _PAST, meaning="past candles before the live ones")),
                media_type=_SSE,
                parameters=_RESUME,
            ),
            "description": _EVENTS,
        }
    },
    "/api/ws/depth": {
        "get": _call(
            "An order book, as it is now",
            _ref("Depth"),
            query=(_SYMBOL, _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100})),
            upstream=True,
        )
    },
    "/api/ws/sse/depth": {
        "get": {
            **_call(
                "An order book as Server-Sent Events: its best levels, whenever they change",
                _TEXT,
                query=(
                    _SYMBOL,
                    _query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
                    _query("max_rate", _RATE, meaning="events a second, at most"),
                ),
                media_type=_SSE,
            ),
            "description": _EVENTS,
        }
    },
    "/api/ws/sse/trades": {
        "get": {
            **_call(
                "Trades as Server-Sent Events",
                _TEXT,
                query=(_SYMBOL, _query("aggregate", {"type": "boolean", "default": False})),
                media_type=_SSE,
                parameters=_RESUME,
            ),
            "description": _EVENTS,
        }
    },
    "/api/signals": {
        "post": _call(
            "Publish a signal to every VIP; with an Idempotency-Key, a retry is answered with the first answer",
            _object(id=_COUNT, signal_type=_TEXT, data={"type": "object"}),
            body="SignalInsert",
            token="the token has not the scope signals:publish, and is not the admin token",  # noqa: S106 - words
            status=201,
            parameters=({"name": "Idempotency-Key", "in": "header", "required": False, "schema": _KEY},),
            others={"422": _problem("the key was used for another signal")},
        ),
        "get": _call(
            "Signals as they stand now, oldest first",
            _ref("SignalsBody"),
            query=(
                _query("since_id", {**_ID, "default": 0}),
                *_FILTER,
                _query(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
                    meaning="at most so many, and at most 1 MiB of data; next_since_id leads on",
                ),
            ),
            token="VIP subscription required",  # noqa: S106 - words
        ),
    },
    "/api/signals/{signal_id}": {
        "patch": _call(
            "Change fields of a signal; VIPs are told those that changed",
            _ref("Signal"),
            body="SignalChanges",
            token="the token has not the scope signals:publish, and is not the admin token",  # noqa: S106 - words
            parameters=(_path("signal_id", {**_ID, "minimum": 1, "examples": [1]}),),
            others={"404": _problem("there is no signal of this id")},
        )
    },
    "/api/vip/{user_id}": {
        "post": _vip_call("Make a user VIP for at least so many days from now", body="Days"),
        "delete": _vip_call("End a user's VIP now"),
        "get": _vip_call("A user's VIP"),
    },
    "/ws/signals": {
        "get": {
            "summary": "Signals to VIPs, over a WebSocket",
            "description": "Messages: `connected new_signal signal_update ping pong refreshed error`. The token goes "
            "into the query, into `Authorization: Bearer`, or into the subprotocols `komas.signals, bearer.<token>`. "
            "Unknown parameters are ignored, and named in `ignored` of `connected`.",
            "parameters": [
                _query("token", _TEXT),
                _query("since_id", _ID, meaning="replay what came after this signal, then go live"),
                _query("since", _ID, meaning="the same from the position of any message"),
                _query("positions", _FLAG, meaning="give each message its `position`"),
                *_FILTER,
            ],
            "responses": {
                "101": {"description": "always; a refusal is a close frame with code and reason"},
                "400": _problem("the request is no handshake of WebSocket"),
                **_TOO_MANY,
            },
        }
    },
    "/ws/market": {
        "get": {
            "summary": "Many streams over a WebSocket",
            "description": "Client: `subscribe unsubscribe` with `streams` and an `id` of its own, `ping`. Server: "
            "`open subscribed unsubscribed error pong`, events as of `/api/ws/sse/stream` with a `position` for an id, "
            "and `status gap lagged health streams`.",
            "parameters": [
                {**_query("streams", _ref("StreamNames"), meaning="with slashes or commas"), **_LIST},
                _query("since", _TEXT, meaning="go on after the position of an event"),
                _query("history", _PAST, meaning="past candles before the live ones of each stream of candles"),
                _query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
            ],
            "responses": {
                "101": {"description": "always; a refusal is a close frame with code and reason"},
                "400": _problem("the request is no handshake of WebSocket"),
                **_TOO_MANY,
            },
        }
    },
    "/api/admin/sessions": {
        "get": _call(
            "VIP sockets, and how far behind each is",
            _ref("SessionsBody"),
            controls="all",
        )
    },
    "/api/admin/sessions/{session}": {
        "delete": _call(
            "Disconnect a VIP socket",
            _object(disconnected=_TEXT),
            controls="all",
            parameters=(_path("session", _TEXT),),
            others={
                "202": {
                    **_answer(_object(passed_on=_TEXT), "application/json"),
                    "description": "it is no session of this process; the others on the same database were asked",
                },
                "404": _problem("there is no such session; it may have ended"),
                **_STORE,
            },
        )
    },
    "/api/admin/readers": {
        "get": _call(
            "Who reads the market, by address",
            _ref("ReadersBody"),
            controls="all",
        )
    },
    "/api/admin/vips": {
        "get": _call(
            "Users whose VIP was granted or revoked, by their ids",
            _ref("VipsBody"),
            query=(
                _query("after", _USER, meaning="those whose ids come after it; next_after leads on"),
                _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
            ),
            controls="all",
            others=_STORE,
        )
    },
    "/api/admin/signals": {
        "get": _call(
            "The newest signals as they stand, newest first, to choose one that is to be changed",
            _ref("NewestSignalsBody"),
            query=(
                _query("before_id", _ID | {"minimum": 1}, meaning="those older than it; next_before_id leads on"),
                _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
            ),
            controls="all",
            others=_STORE,
        )
    },
    "/api/admin/gaps": {
        "get": _call(
            "Gaps that were declared in the last hour",
            _object(count=_COUNT, gaps={"type": "array", "items": {"allOf": [_ref("Gap"), _object(at=MOMENT)]}}),
            controls="all",
        )
    },
    "/debug/tasks": {
        "get": _call(
            "The tree of tasks, and how late tasks run",
            _object(
                count=_COUNT,
                left_out=_COUNT,
                loop_lag=_object(last_s={"type": "number"}, max_s={"type": "number"}),
                root=_ref("Task"),
            ),
            controls="all",
        )
    },
    "/api/logs/today": {
        "get": _call(
            "Today's log records, newest last",
            _LOGS,
            query=(
                _query("level", {"enum": ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], "default": "DEBUG"}),
                _query(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
                    meaning="at most so many, and at most 1 MiB of records",
                ),
            ),
            controls="all",
        )
    },
    "/healthz": {"get": {"summary": "Liveness", "responses": {"200": _answer(_object(status={"const": "ok"}))}}},
    "/readyz": {
        "get": {
            "summary": "Readiness, with reasons",
            "responses": {
                "200": _answer(_object(status=_TEXT, reasons={"type": "array", "items": _TEXT})),
                "503": _answer(_object(status=_TEXT, reasons={"type": "array", "items": _TEXT})),
            },
        }
    },
    "/metrics": {
        "get": _call(
            "Counts for Prometheus",
            _TEXT,
            others={
                "200": {
                    "description": "as OpenMetrics where Accept prefers that",
                    "content": {
                        "text/plain": {"schema": _TEXT},
                        "application/openmetrics-text": {"schema": _TEXT},
                    },
                }
            },
        )
    },
    "/docs": {"get": _call("This API, to read and to try", _TEXT, media_type="text/html", others=_UNCHANGED)},
    "/openapi.json": {"get": _call("This description", {"type": "object"})},
    "/asyncapi.json": {"get": _call("What comes over event streams and WebSockets, AsyncAPI 3", {"type": "object"})},
}


def query_parameters() -> dict[tuple[str, str], frozenset[str]]:
    """The names of the parameters in the query, by path and method."""
    return {
        (path, method.upper()): frozenset(
            str(parameter["name"]) for parameter in _parameters(call) if parameter["in"] == "query"
        )
        for path, calls in _PATHS.items()
        for method, call in calls.items()
    }


def _parameters(call: Schema) -> list[Schema]:
    found = call.get("parameters", [])
    assert isinstance(found, list)
    return found


def document(*, max_symbols: int, max_names: int, signal_types: Sequence[str]) -> dict[str, object]:
    """The whole description, for these settings."""
    settings: dict[str, Schema] = {
        "Symbols": {"type": "array", "items": _ref("Symbol"), "minItems": 1, "maxItems": max_symbols},
        "StreamNames": {"type": "array", "items": _ref("StreamName"), "maxItems": max_names},
        "SignalType": {"enum": list(signal_types)},
        "SignalTypes": {"type": "array", "items": _ref("SignalType"), "minItems": 1, "maxItems": max_symbols},
        "CoinNames": {"type": "array", "items": _ref("CoinName"), "minItems": 1, "maxItems": max_symbols},
        "SignalInsert": {
            **_request(signal_type=_ref("SignalType"), data=_ref("SignalData")),
            "examples": [{"signal_type": each, "data": _DATA} for each in signal_types[:1]],
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "komas",
            "version": version("komas"),
            "summary": "Binance market streams and trading signals",
            "description": "A parameter that a call does not have is refused where it is nearly one that it has, with "
            "400; all others are ignored, and named in `ignored` of a problem document.",
        },
        "tags": [{"name": name, "description": meaning} for name, meaning in TAGS.items()],
        "paths": {
            path: {method: described(path, method, call) for method, call in calls.items()}
            for path, calls in _PATHS.items()
        },
        "components": {
            "schemas": generated(_ANSWERS) | _SCHEMAS | settings,
            "securitySchemes": {
                "admin": {"type": "http", "scheme": "bearer", "description": "`komas token admin` prints it"},
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "an access token of a VIP or a producer; `komas token issue` makes one",
                },
            },
        },
    }
