"""The API's description, OpenAPI 3.1: built from the same catalogues that the views check against.

It is as strict as the server: what a schema allows is accepted, what it does not is refused, and every status that an
answer can have is listed. What no schema can say is which symbols the exchange lists. Schemathesis holds both against
each other (docs/conformance.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from importlib.metadata import version
from typing import Final, Literal

import msgspec

from komas.model.kinds import KINDS, Kind, kinds
from komas.model.market import Health
from komas.model.signals import MOST_DAYS
from komas.model.streams import INTERVALS, SYMBOL_LENGTH
from komas.signals.tokens import SUBJECT_LENGTH
from komas.signals.validation import DATA_BYTES, DEPTH, DIGITS, EXPONENT, IDEMPOTENCY_LENGTH, KEY_LENGTH
from komas.web.params import ALL, LARGEST, MAX_RATE, MIN_RATE

Schema = dict[str, object]

_NUMBER: Final[Schema] = {"type": "number", "description": "with every digit that the exchange sent"}
_MOMENT: Final[Schema] = {"type": "string", "format": "date-time", "examples": ["2026-01-01T00:00:00.000Z"]}
_MS: Final[Schema] = {"type": "integer", "description": "milliseconds since the epoch, by the exchange's clock"}
_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer"}
_FLAG: Final[Schema] = {"type": "boolean"}
_ID: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": LARGEST}
_NAME: Final[Schema] = {"maxLength": KEY_LENGTH}
LARGEST_NUMBER: Final = 10**EXPONENT
SMALLEST_NUMBER: Final = float(f"1e-{EXPONENT}")


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _request(**properties: Schema) -> Schema:
    return {**_object(**properties), "additionalProperties": False}


def _optional(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


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


_MARKETS: Final = ("spot", "usd_m")
_SUFFIXES: Final = "|".join(
    spec.suffix + (f"({'|'.join(INTERVALS)})" if spec.has_interval else "") for spec in KINDS.values()
)
_LEVELS: Final[dict[str, object]] = {
    "type": "array",
    "items": {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2},
    "description": "levels as [price, quantity], best first",
}
_CONNECTION: Final = _object(
    url=_TEXT,
    shard=_COUNT,
    streams=_COUNT,
    connected_at=_MOMENT,
    uptime_seconds={"type": "number", "description": "of this connection"},
    messages_received=_COUNT,
)
_STREAM: Final = _object(
    stream=_TEXT,
    type={"enum": [str(kind) for kind in Kind]},
    symbol=_TEXT,
    interval=_optional(_TEXT),
    health={"enum": [str(health) for health in Health]},
    subscribers=_COUNT,
    pinned=_FLAG,
    last_event_at=_optional(_MOMENT),
)

# What a field's type does not tell.
_TOLD: Final[dict[tuple[Kind, str], Schema]] = {
    (Kind.KLINE, "interval"): {"enum": list(INTERVALS)},
    (Kind.KLINE, "timestamp"): {**_MS, "description": "open time of the candle, milliseconds since the epoch"},
    (Kind.BOOK_TICKER, "timestamp"): {**_MS, "description": "komas's time of receipt: spot sends none"},
}
_OF_TYPE: Final[dict[object, Schema]] = {
    str: _TEXT,
    bool: _FLAG,
    int: _COUNT,
    Decimal: _NUMBER,
    Decimal | None: _optional(_NUMBER),
    tuple[tuple[Decimal, Decimal], ...]: _LEVELS,
}


def _event(kind: Kind) -> Schema:
    """An event's schema, made of its Struct."""
    fields = {field.name: field.type for field in msgspec.structs.fields(KINDS[kind].event)}
    return _object(
        type={"const": str(kind)}, **{name: _field(kind, name, its_type) for name, its_type in fields.items()}
    )


def _field(kind: Kind, name: str, its_type: object) -> Schema:
    if (kind, name) in _TOLD:
        return _TOLD[kind, name]
    is_time = name == "timestamp" or name.endswith("_time")
    if is_time:
        return _MS if its_type is int else _optional(_MS)
    return _OF_TYPE[its_type]


_SCHEMAS: Final[dict[str, Schema]] = {
    **{spec.event.__name__: _event(kind) for kind, spec in KINDS.items()},
    "Task": _object(
        name={"type": "string", "description": "of the function that runs, or what it is for"},
        count={"type": "integer", "description": "so many tasks of this name run beside each other"},
        tasks={"type": "array", "items": {"$ref": "#/components/schemas/Task"}},
    ),
    "Status": _object(
        connected=_FLAG,
        state={"enum": ["disconnected", "connecting", "connected", "reconnecting"]},
        url=_TEXT,
        streams=_COUNT,
        subscribers=_COUNT,
        messages_received=_COUNT,
        reconnects=_COUNT,
        rotations=_COUNT,
        last_message_at=_optional(_MOMENT),
        uptime_seconds={"type": "number", "description": "of the connection; 0 while there is none"},
        reason=_optional(_TEXT),
        connections={"type": "array", "items": _CONNECTION},
    ),
    "Prices": _object(
        count=_COUNT,
        prices={"type": "object", "additionalProperties": {"anyOf": [_ref("Ticker"), _ref("MiniTicker")]}},
        timestamp=_MOMENT,
    ),
    "Streams": _object(count=_COUNT, streams={"type": "array", "items": _STREAM}),
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
    "SymbolInfo": _object(
        symbol=_TEXT,
        status=_TEXT,
        base=_TEXT,
        quote=_TEXT,
        tick_size=_optional(_NUMBER),
        step_size=_optional(_NUMBER),
        market={"enum": list(_MARKETS)},
        volume_24h=_optional(_NUMBER),
    ),
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
    "Signal": _object(id=_COUNT, signal_type=_TEXT, data={"type": "object"}, created_at=_MOMENT, updated_at=_MOMENT),
    "SignalInsert": _request(signal_type=_ref("SignalType"), data=_ref("SignalData")),
    "SignalChanges": _request(data=_ref("SignalData")),
    "SignalData": {
        "type": "object",
        "minProperties": 1,
        "propertyNames": _NAME,
        "properties": {"coin_name": _TEXT, "position": _TEXT, "spread": _optional(_ref("SignalNumber"))},
        "patternProperties": {"_price$": _optional(_ref("SignalNumber"))},
        "additionalProperties": _ref(f"SignalValue{DEPTH}"),
        "description": "`id` and `created_at` are the server's; numbers keep their digits. "
        f"At most {DATA_BYTES // 1024} KiB",
        "examples": [{"coin_name": "NB", "position": "SHORT", "spread": 8.84}],
    },
    **{f"SignalValue{levels}": _value(levels) for levels in range(1, DEPTH + 1)},
    "SignalNumber": {
        "type": "number",
        "exclusiveMinimum": -LARGEST_NUMBER,
        "exclusiveMaximum": LARGEST_NUMBER,
        "not": {"exclusiveMinimum": -SMALLEST_NUMBER, "exclusiveMaximum": SMALLEST_NUMBER, "not": {"const": 0}},
        "description": f"of at most {DIGITS} digits",
    },
    "Days": _request(days={"type": "integer", "minimum": 1, "maximum": MOST_DAYS}),
    "Vip": _object(user_id=_TEXT, active=_FLAG, revoked=_FLAG, vip_until=_optional(_COUNT)),
    "Problem": {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": _TEXT,
            "title": _TEXT,
            "status": _COUNT,
            "detail": _TEXT,
            "errors": {"type": "array", "items": _object(field=_TEXT, message=_TEXT)},
            "ignored": {"type": "array", "items": _TEXT, "description": "parameters that this call does not have"},
        },
    },
}

_LOGS: Final = _object(count=_COUNT, records={"type": "array", "items": {"type": "object"}})
_EVENTS: Final = (
    "`retry:` in the first event, then what is already known, then events. Data events have no name: "
    '`{"type", "data", "timestamp"}`, and `"backfilled": true` where a fact was missed and asked for. Named notices: '
    '`status` `{"state", "reason"?, "retry_in_s"?, "stream"?}`, `gap` `{"stream", "from", "to", "filled", "reason"?}`, '
    '`health` `{"stream", "health", "reason"}`, `lagged` `{"dropped"}`, `busy` `{"reason"}`.'
)


def _answer(schema: Schema, media_type: str = "application/json") -> Schema:
    return {"description": "as described", "content": {media_type: {"schema": schema}}}


def _problem(what: str) -> Schema:
    return {"description": what, "content": {"application/problem+json": {"schema": _ref("Problem")}}}


def _query(name: str, schema: Schema, *, required: bool = False, meaning: str = "") -> Schema:
    return {"name": name, "in": "query", "required": required, "description": meaning, "schema": schema}


def _path(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


# No space, nothing that Unicode 15 calls a control, a format or private, and not what a path that is not UTF-8 becomes.
_PRINTABLE: Final = (
    r"[^\x00-\x20\x7f-\xa0\xad\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ue000-\uf8ff\ufeff"
    r"\ufff0-\ufffb\ufffd-\uffff]"
)
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
        },
    )
    return _call(summary, _ref("Vip"), body=body, controls="all", parameters=(user,), others=_STORE)


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
_KEY: Final[Schema] = {"type": "string", "pattern": rf"^[!-~](?:[ -~]{{0,{IDEMPOTENCY_LENGTH - 2}}}[!-~])?$"}

_UNCHANGED: Final[Schema] = {"304": {"description": "what If-None-Match names is still the same"}}
_PATHS: Final[dict[str, dict[str, Schema]]] = {
    "/": {"get": _call("A page with live prices", _TEXT, media_type="text/html", others=_UNCHANGED)},
    "/static/{name}": {
        "get": _call(
            "A file of the page, or of the library for front ends (komas.js, komas.d.ts, react.js)",
            _TEXT,
            media_type="text/javascript",
            parameters=(_path("name", _TEXT),),
            others={**_UNCHANGED, "404": _problem("there is no such file")},
        )
    },
    "/api/ws/status": {"get": _call("State of the exchange connection", _ref("Status"))},
    "/api/ws/connect": {"post": _call("Connect to the exchange", _ref("Status"), controls="market", upstream=True)},
    "/api/ws/disconnect": {"post": _call("Disconnect from the exchange", _ref("Status"), controls="market")},
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
            _object(
                symbol=_TEXT,
                interval=_TEXT,
                count=_COUNT,
                candles={"type": "array", "items": _ref("Kline")},
            ),
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
            _object(
                symbol=_TEXT,
                count=_COUNT,
                trades={"type": "array", "items": {"anyOf": [_ref("Trade"), _ref("AggTrade")]}},
            ),
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
            _object(count=_COUNT, symbols={"type": "array", "items": _ref("SymbolInfo")}),
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
            _object(count=_COUNT, signals={"type": "array", "items": _ref("Signal")}, next_since_id=_COUNT),
            query=(
                _query("since_id", {**_ID, "default": 0}),
                _query("signal_type", _ref("SignalType")),
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
            parameters=(_path("signal_id", {**_ID, "minimum": 1}),),
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
            _object(
                count=_COUNT,
                sessions={
                    "type": "array",
                    "items": _object(
                        id=_TEXT,
                        user_id={"type": ["integer", "string"]},
                        address=_TEXT,
                        since=_MOMENT,
                        behind=_COUNT,
                        admitted=_FLAG,
                    ),
                },
            ),
            controls="all",
        )
    },
    "/api/admin/sessions/{session}": {
        "delete": _call(
            "Disconnect a VIP socket",
            _object(disconnected=_TEXT),
            controls="all",
            parameters=(_path("session", _TEXT),),
            others={"404": _problem("there is no such session; it may have ended")},
        )
    },
    "/api/admin/readers": {
        "get": _call(
            "Who reads the market, by address",
            _object(
                count=_COUNT,
                readers={"type": "array", "items": _object(address=_TEXT, streams=_COUNT, subscriptions=_COUNT)},
            ),
            controls="all",
        )
    },
    "/api/admin/gaps": {
        "get": _call(
            "Gaps that were declared in the last hour",
            _object(count=_COUNT, gaps={"type": "array", "items": {"type": "object"}}),
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
    "/openapi.json": {"get": _call("This description", {"type": "object"})},
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
        "paths": _PATHS,
        "components": {
            "schemas": _SCHEMAS | settings,
            "securitySchemes": {
                "admin": {"type": "http", "scheme": "bearer"},
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    }
