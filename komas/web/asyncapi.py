"""What comes and goes over event streams and WebSockets, AsyncAPI 3.1: from the Structs that are encoded (sans-I/O).

komas is the application: it *sends* what a client hears, and *receives* what a client says. The query of a channel is
its row in ``komas.web.openapi``. Over SSE, ``headers`` are the lines of an event beside ``data``. AsyncAPI has no word
for close codes: ``x-close-codes`` is ``komas.errors.Closing``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import version
from typing import Final

import msgspec

from komas.errors import Closing
from komas.model.kinds import KINDS, Kind, kinds
from komas.model.market import FeedStatus, Gap, HealthNotice, Notice, StreamList
from komas.model.signals import NewSignalMessage, SignalUpdateMessage
from komas.signals.messages import Connected, Expiring, Ping, Pong, Refresh, Refreshed, Refusal
from komas.web.encoding import EVENT_NAMES, EventMessage
from komas.web.market_messages import (
    Busy,
    EventsOpened,
    Lagged,
    MarketRefusal,
    NamedLagged,
    Opened,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from komas.web.schemas import REFERENCE, Schema, generated, reference

_Struct = type[msgspec.Struct]

_NOTICES: Final[tuple[type[Notice], ...]] = (Gap, FeedStatus, HealthNotice)
_SIGNALS_SENT: Final[tuple[_Struct, ...]] = (
    Connected,
    Expiring,
    NewSignalMessage,
    SignalUpdateMessage,
    Ping,
    Pong,
    Refreshed,
    Refusal,
)
_SIGNALS_RECEIVED: Final[tuple[_Struct, ...]] = (Ping, Pong, Refresh)
_MARKET_SENT: Final[tuple[_Struct, ...]] = (Opened, Subscribed, Unsubscribed, MarketRefusal, Pong, NamedLagged)
_MARKET_RECEIVED: Final[tuple[_Struct, ...]] = (Subscribe, Unsubscribe, Ping, Pong)

_STRUCTS: Final[tuple[_Struct, ...]] = (
    *(spec.event for spec in KINDS.values()),
    *_NOTICES,
    StreamList,
    EventMessage,
    EventsOpened,
    Lagged,
    Busy,
    *dict.fromkeys((*_SIGNALS_SENT, *_SIGNALS_RECEIVED, *_MARKET_SENT, *_MARKET_RECEIVED)),
)

_EVENT_STREAMS: Final[Mapping[str, tuple[Kind, ...]]] = {
    "/api/ws/sse/prices": tuple(kinds(is_price=True)),
    "/api/ws/sse/klines": (Kind.KLINE,),
    "/api/ws/sse/trades": (Kind.TRADE, Kind.AGG_TRADE),
    "/api/ws/sse/depth": (Kind.DEPTH,),
    "/api/ws/sse/stream": tuple(Kind),
}
_OF_SIGNALS: Final = {Closing.UNAUTHORIZED, Closing.VIP_REQUIRED, Closing.DISCONNECTED, Closing.WRONG_SINCE}
_PLACE: Final[Schema] = {"type": "string", "examples": ["q3ZkT9aB-20817"], "description": "a place to come back to"}
_STREAM: Final[Schema] = {"type": "string", "examples": ["btcusdt@trade"], "description": "in the exchange's own words"}


def document(api: Mapping[str, object]) -> dict[str, object]:
    """The whole description; ``api`` is that of ``komas.web.openapi``, for the same settings."""
    paths, components = _table(api["paths"]), _table(api["components"])
    calls = {path: _table(_table(paths[path])["get"]) for path in (*_EVENT_STREAMS, "/ws/signals", "/ws/market")}
    channels = {_name(path): _event_stream(path, found, calls[path]) for path, found in _EVENT_STREAMS.items()}
    operations = {f"{_name(path)}_send": _read_events(path, calls[path], channels) for path in _EVENT_STREAMS}
    for path, sent, received in (
        ("/ws/signals", _told(_SIGNALS_SENT), _told(_SIGNALS_RECEIVED)),
        ("/ws/market", _told(_MARKET_SENT) | _many_streams(), _told(_MARKET_RECEIVED)),
    ):
        channels[_name(path)] = _websocket(path, calls[path], sent | received)
        operations[f"{_name(path)}_send"] = _operation("send", path, sent)
        operations[f"{_name(path)}_receive"] = _operation("receive", path, received)
    for each in ("send", "receive"):
        operations[f"ws_signals_{each}"]["security"] = [{"$ref": "#/components/securitySchemes/token"}]
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "komas",
            "version": version("komas"),
            "description": "Binance market streams and trading signals, over Server-Sent Events and WebSockets. "
            "/openapi.json describes every call, docs/protocol.md what is guaranteed.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "schemas": _with_asked(generated(_STRUCTS), [channels, operations], _table(components["schemas"])),
            "securitySchemes": {"token": _table(components["securitySchemes"])["token"]},
        },
    }


def _name(path: str) -> str:
    return path.removeprefix("/api/ws").strip("/").replace("/", "_")


def _table(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value


# Event streams


def _event_stream(path: str, found: Iterable[Kind], call: Schema) -> Schema:
    is_many = path.endswith("/stream")
    notices: dict[str, _Struct] = {EVENT_NAMES[each]: each for each in _NOTICES} | {"lagged": Lagged, "busy": Busy}
    if is_many:
        notices |= {EVENT_NAMES[StreamList]: StreamList, "open": EventsOpened}
    messages = {str(kind): _event(kind, is_many=is_many) for kind in found}
    messages |= {name: _notice(name, struct) for name, struct in notices.items()}
    told = {key: call[key] for key in ("summary", "description")}
    return {"address": path, **told, "messages": messages}


def _read_events(path: str, call: Schema, channels: Mapping[str, Schema]) -> Schema:
    http: Schema = {"method": "GET", "query": _query_of(call), "bindingVersion": "0.3.0"}
    return _operation("send", path, _table(channels[_name(path)]["messages"])) | {"bindings": {"http": http}}


def _event(kind: Kind, *, is_many: bool) -> Schema:
    """What ``onmessage`` sees; an event that a reader may come back to has an ``id``."""
    more = {"stream": _STREAM} if is_many else {}
    headers = {"headers": {"type": "object", "properties": {"id": _PLACE}}} if _is_kept(kind) else {}
    return {**_message(str(kind), KINDS[kind].event, _enveloped(kind, more)), **headers}


def _notice(name: str, struct: _Struct) -> Schema:
    headers: Schema = {"type": "object", "required": ["event"], "properties": {"event": {"const": name}}}
    return {**_message(name, struct, reference(struct.__name__)), "headers": headers}


def _is_kept(kind: Kind) -> bool:
    return KINDS[kind].kept_bytes > 0


def _enveloped(kind: Kind, more: Mapping[str, Schema]) -> Schema:
    """An event in its envelope, and what stands beside it where there are many streams."""
    own: Schema = {"type": {"const": str(kind)}, "data": reference(KINDS[kind].event.__name__), **more}
    required = [name for name in more if name != "position"]
    beside: Schema = {"type": "object", "properties": own, **({"required": required} if required else {})}
    return {"allOf": [reference(EventMessage.__name__), beside]}


# WebSockets


def _websocket(path: str, call: Schema, messages: Mapping[str, Schema]) -> Schema:
    others = _OF_SIGNALS if path == "/ws/market" else {Closing.WRONG_REQUEST}
    return {
        "address": path,
        "summary": call["summary"],
        "description": call["description"],
        "messages": messages,
        "bindings": {"ws": {"method": "GET", "query": _query_of(call), "bindingVersion": "0.1.0"}},
        "x-close-codes": [
            {"code": closing.code, "reason": closing.reason, "comesBack": closing.is_worth_a_retry}
            for closing in Closing
            if closing not in others
        ],
    }


def _many_streams() -> dict[str, Schema]:
    """Events and notices of ``/ws/market``: what SSE says in lines of its own is a member here."""
    place: dict[str, Schema] = {"position": _PLACE}
    found = {
        str(kind): _message(
            str(kind), KINDS[kind].event, _enveloped(kind, {"stream": _STREAM} | (place if _is_kept(kind) else {}))
        )
        for kind in Kind
    }
    for notice in (*_NOTICES, StreamList):
        name = EVENT_NAMES[notice]
        named: Schema = {"type": "object", "required": ["type"], "properties": {"type": {"const": name}}}
        found[name] = _message(name, notice, {"allOf": [reference(notice.__name__), named]})
    return found


def _told(structs: Iterable[_Struct]) -> dict[str, Schema]:
    """Messages by their ``type``."""
    return {
        tag: _message(tag, struct, reference(struct.__name__))
        for struct in structs
        if isinstance(tag := struct.__struct_config__.tag, str)
    }


# What both have


def _message(name: str, struct: _Struct, payload: Schema) -> Schema:
    summary = (struct.__doc__ or "").partition("\n")[0].replace("``", "`")
    return {"name": name, "summary": summary, "payload": payload}


def _operation(action: str, path: str, messages: Collection[str]) -> Schema:
    channel = f"#/channels/{_name(path)}"
    return {
        "action": action,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{name}"} for name in messages],
    }


def _query_of(call: Schema) -> Schema:
    parameters = call["parameters"]
    assert isinstance(parameters, list)
    found = [each for each in parameters if each["in"] == "query"]
    properties = {
        each["name"]: {
            "allOf": [each["schema"]],
            **({"description": each["description"]} if each["description"] else {}),
        }
        for each in found
    }
    required = [each["name"] for each in found if each["required"]]
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _with_asked(schemas: dict[str, Schema], asking: object, known: Mapping[str, object]) -> dict[str, object]:
    """Schemas, and those that are referred to besides."""
    found: dict[str, object] = dict(schemas)
    while missing := [name for name in _references([asking, found]) if name not in found]:
        found |= {name: known[name] for name in missing}
    return found


def _references(value: object) -> Iterable[str]:
    match value:
        case {"$ref": str(name)} if name.startswith(REFERENCE):
            yield name.removeprefix(REFERENCE)
        case dict():
            for each in value.values():
                yield from _references(each)
        case list():
            for each in value:
                yield from _references(each)
        case _:
            pass
