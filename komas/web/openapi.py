"""The API's description, OpenAPI 3.1: built from the same catalogues that the views check against."""

from __future__ import annotations

from decimal import Decimal
from importlib.metadata import version
from typing import Final, Literal

import msgspec

from komas.model.kinds import KINDS, Kind, kinds
from komas.model.market import Health
from komas.model.streams import INTERVALS

Schema = dict[str, object]

_NUMBER: Final[Schema] = {"type": "number", "description": "with every digit that the exchange sent"}
_MOMENT: Final[Schema] = {"type": "string", "format": "date-time", "examples": ["2026-01-01T00:00:00.000Z"]}
_MS: Final[Schema] = {"type": "integer", "description": "milliseconds since the epoch, by the exchange's clock"}
_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer"}
_FLAG: Final[Schema] = {"type": "boolean"}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _optional(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


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
    "SubscribeRequest": {
        "type": "object",
        "required": ["symbols"],
        "additionalProperties": False,
        "properties": {
            "symbols": {
                "type": "array",
                "minItems": 1,
                "items": _TEXT,
                "examples": [["BTCUSDT", "ETHUSDT"], ["*"]],
                "description": "`*` alone: every symbol that trades, for ticker and mini_ticker",
            },
            "stream_type": {"enum": [str(kind) for kind in Kind], "default": "ticker"},
            "interval": {"enum": list(INTERVALS), "default": "1m", "description": "of kline alone"},
        },
    },
    "Signal": _object(id=_COUNT, signal_type=_TEXT, data={"type": "object"}, created_at=_MOMENT, updated_at=_MOMENT),
    "SignalInsert": {
        "type": "object",
        "required": ["signal_type", "data"],
        "additionalProperties": False,
        "properties": {
            "signal_type": {**_TEXT, "examples": ["mexc_spot_futures"]},
            "data": {
                "type": "object",
                "description": "`id` and `created_at` are the server's; numbers keep their digits",
                "examples": [{"coin_name": "NB", "position": "SHORT", "spread": 8.84}],
            },
        },
    },
    "SignalChanges": {
        "type": "object",
        "required": ["data"],
        "additionalProperties": False,
        "properties": {"data": {"type": "object", "examples": [{"spread": 9.12}]}},
    },
    "Days": {
        "type": "object",
        "required": ["days"],
        "additionalProperties": False,
        "properties": {"days": {"type": "integer", "minimum": 1, "maximum": 36_500}},
    },
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


_STORE: Final[Schema] = {"503": _problem("the store is unavailable; try again")}


def _call(
    summary: str,
    schema: Schema,
    *,
    query: tuple[Schema, ...] = (),
    body: str | None = None,
    controls: Literal["market", "all", ""] = "",
    upstream: bool = False,
    media_type: str = "application/json",
    bad_input: bool = False,
    parameters: tuple[Schema, ...] = (),
    token: str = "",
    status: int = 200,
    others: Schema | None = None,
) -> Schema:
    responses: Schema = {str(status): _answer(schema, media_type)}
    if body or query or bad_input:
        responses["400"] = _problem("what was sent is wrong, field by field")
    if body:
        responses["413"] = _problem("the body is too large")
    if controls:
        responses["401"] = _problem("the admin token is missing or wrong")
    if upstream:
        responses |= {
            **({"409": _problem("no room for more streams")} if controls else {}),
            "502": _problem("the exchange refused, in its own words"),
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
    user = _path("user_id", _TEXT)
    return _call(summary, _ref("Vip"), body=body, controls="all", bad_input=True, parameters=(user,), others=_STORE)


_SYMBOLS: Final = _query("symbols", _TEXT, required=True, meaning="symbols with commas, in any case")
_SYMBOL: Final = _query("symbol", _TEXT, required=True, meaning="one symbol, in any case")
_SOME_SYMBOLS: Final = _query("symbols", _TEXT, meaning="symbols with commas; all, or the default list, without it")
_INTERVAL: Final = _query("interval", {"enum": list(INTERVALS), "default": "1m"})
_RATE: Final[Schema] = {"type": "number", "minimum": 0.1, "maximum": 1000}
_RESUME: Final[tuple[Schema, ...]] = (
    {"name": "Last-Event-ID", "in": "header", "required": False, "description": "go on after it", "schema": _TEXT},
    _query(
        "last_event_id",
        _TEXT,
        meaning="the same, for clients that cannot set a header; lastEventId and Last-Event-ID mean it, too",
    ),
)
_SSE: Final = "text/event-stream"

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
    "/api/ws/sse/klines": {
        "get": {
            **_call(
                "Candles as Server-Sent Events",
                _TEXT,
                query=(_SYMBOL, _INTERVAL),
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
            others={"429": _problem("too many clients, streams or order books; from this address, or in all")},
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
            token="the token has not the scope signals:publish",  # noqa: S106 - words
            status=201,
            parameters=({"name": "Idempotency-Key", "in": "header", "required": False, "schema": _TEXT},),
            others={"422": _problem("the key was used for another signal")},
        ),
        "get": _call(
            "Signals as they stand now, oldest first",
            _object(count=_COUNT, signals={"type": "array", "items": _ref("Signal")}, next_since_id=_COUNT),
            query=(
                _query("since_id", {"type": "integer", "minimum": 0, "default": 0}),
                _query("signal_type", _TEXT),
                _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
            ),
            token="VIP subscription required",  # noqa: S106 - words
        ),
    },
    "/api/signals/{signal_id}": {
        "patch": _call(
            "Change fields of a signal; VIPs are told those that changed",
            _ref("Signal"),
            body="SignalChanges",
            token="the token has not the scope signals:publish",  # noqa: S106 - words
            parameters=(_path("signal_id", _COUNT),),
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
            "into the query, into `Authorization: Bearer`, or into the subprotocols `komas.signals, bearer.<token>`.",
            "parameters": [
                _query("token", _TEXT),
                _query("since_id", _COUNT, meaning="replay what came after this signal, then go live"),
                _query("since", _COUNT, meaning="the same from the position of any message"),
                _query("positions", _FLAG, meaning="give each message its `position`"),
            ],
            "responses": {"101": {"description": "always; a refusal is a close frame with code and reason"}},
        }
    },
    "/api/logs/today": {
        "get": _call(
            "Today's log records, newest last",
            _LOGS,
            query=(
                _query("level", {"enum": ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], "default": "DEBUG"}),
                _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
            ),
            controls="all",
        )
    },
    "/healthz": {"get": _call("Liveness", _object(status={"const": "ok"}))},
    "/readyz": {
        "get": {
            "summary": "Readiness, with reasons",
            "responses": {
                "200": _answer(_object(status=_TEXT, reasons={"type": "array", "items": _TEXT})),
                "503": _answer(_object(status=_TEXT, reasons={"type": "array", "items": _TEXT})),
            },
        }
    },
    "/metrics": {"get": _call("Counts for Prometheus", _TEXT, media_type="text/plain")},
    "/openapi.json": {"get": _call("This description", {"type": "object"})},
}


def document() -> dict[str, object]:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "komas",
            "version": version("komas"),
            "summary": "Binance market streams and trading signals",
        },
        "paths": _PATHS,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {
                "admin": {"type": "http", "scheme": "bearer"},
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    }
