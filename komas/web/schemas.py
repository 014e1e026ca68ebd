"""JSON schemas of what is sent, generated from the Structs that are encoded (sans-I/O).

msgspec knows the types; what it cannot know is said here: that a ``Decimal`` leaves as a number, that a field with a
default is left out only where its Struct says so, and what a bare number or text means.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec.inspect import ListType, StructType, UnionType, VarTupleType

from komas.model.market import BookTicker, Kline
from komas.model.streams import INTERVALS
from komas.web.encoding import EventMessage
from komas.web.routes.admin import SessionRow
from komas.web.routes.history import CandlesBody, TradesBody
from komas.web.samples import samples

Schema = dict[str, object]

REFERENCE: Final = "#/components/schemas/"
NUMBER: Final[Schema] = {"type": "number", "description": "with every digit that the exchange sent"}
MOMENT: Final[Schema] = {"type": "string", "format": "date-time", "examples": ["2026-01-01T00:00:00.000Z"]}
MS: Final[Schema] = {"type": "integer", "description": "milliseconds since the epoch, by the exchange's clock"}


def reference(name: str) -> Schema:
    """What stands for a schema of this name."""
    return {"$ref": REFERENCE + name}


# What a field's type does not tell.
_TOLD: Final[dict[tuple[type, str], Schema]] = {
    (Kline, "interval"): {"enum": list(INTERVALS)},
    (Kline, "timestamp"): {**MS, "description": "open time of the candle, milliseconds since the epoch"},
    (BookTicker, "timestamp"): {**MS, "description": "komas's time of receipt: spot sends none"},
    (SessionRow, "since"): MOMENT,
    (CandlesBody, "candles"): {"type": "array", "items": reference("Kline")},
    (EventMessage, "data"): {"type": "object"},
    (TradesBody, "trades"): {"type": "array", "items": {"anyOf": [reference("Trade"), reference("AggTrade")]}},
}


def generated(structs: Iterable[type[msgspec.Struct]]) -> dict[str, Schema]:
    """The schemas of these Structs and of all that they hold, by the names of the classes."""
    asked, examples = tuple(structs), samples()
    _, components = msgspec.json.schema_components(asked, ref_template=REFERENCE + "{name}")
    known = {info.cls.__name__: info for info in _held(asked)}
    return {
        name: _mended(known.get(name), schema) | ({"examples": [examples[name]]} if name in examples else {})
        for name, schema in components.items()
    }


def _held(structs: Iterable[type[msgspec.Struct]]) -> Iterable[StructType]:
    """They, and what is in them."""
    waiting: list[object] = [*msgspec.inspect.multi_type_info(structs)]
    seen: set[type] = set()
    while waiting:
        match waiting.pop():
            case StructType(cls=cls) as info if cls not in seen:
                seen.add(cls)
                yield info
                waiting += [field.type for field in info.fields]
            case UnionType(types=types):
                waiting += types
            case VarTupleType(item_type=item) | ListType(item_type=item):
                waiting.append(item)
            case _:
                pass


def _mended(info: StructType | None, schema: Schema) -> Schema:
    """As it is encoded; what is no Struct is an enumeration."""
    mended = {key: _with_numbers(value) for key, value in schema.items() if key != "title"}
    if isinstance(description := mended.get("description"), str):
        mended["description"] = _for_readers(description, info)
    properties = mended.get("properties")
    if info is None or not isinstance(properties, dict):
        return mended
    required = [] if info.tag_field is None else [info.tag_field]
    omits_defaults = info.cls.__struct_config__.omit_defaults
    for field in info.fields:
        told = _told(info.cls, field.name, properties[field.encode_name])
        told.pop("default", None)  # of who makes the Struct, not of who reads what it became
        properties[field.encode_name] = told
        has_default = field.default is not msgspec.NODEFAULT or field.default_factory is not msgspec.NODEFAULT
        is_unset = not field.required and not has_default  # msgspec shows no default where it is UNSET
        is_optional = is_unset or (has_default and omits_defaults)
        required += [] if is_optional else [field.encode_name]
    return mended | {"required": required}


def _for_readers(docstring: str, info: StructType | None) -> str:
    """A docstring in the words of JSON."""
    text = " ".join(docstring.replace("``", "`").replace("`None`", "`null`").split())
    for field in () if info is None else info.fields:
        text = text.replace(f"`{field.name}`", f"`{field.encode_name}`")
    return text


def _told(struct: type[msgspec.Struct], name: str, schema: Schema) -> Schema:
    for each in struct.__mro__:
        if (each, name) in _TOLD:
            return dict(_TOLD[each, name])
    if name == "data" and "type" not in schema and "$ref" not in schema:  # text that is JSON already
        return {"type": "object"}
    meaning: Schema | None = None
    if name == "timestamp" or name.endswith("_time"):
        meaning = MS
    elif name.endswith("_at"):
        meaning = MOMENT
    if meaning is None:
        return dict(schema)
    if schema.get("type") == meaning["type"]:
        return dict(meaning)
    return {"anyOf": [meaning, {"type": "null"}]} if {"type": "null"} in _either(schema) else dict(schema)


def _either(schema: Schema) -> list[object]:
    choices = schema.get("anyOf", [])
    return choices if isinstance(choices, list) else []


def _with_numbers(schema: object) -> object:
    """A ``Decimal`` leaves as a number; a level of an order book is two of them."""
    match schema:
        case {"type": "string", "format": "decimal"}:
            return dict(NUMBER)
        case {"type": "array", "minItems": 2, "maxItems": 2, "prefixItems": [_, _]}:
            return {
                "type": "array",
                "items": dict(NUMBER),
                "minItems": 2,
                "maxItems": 2,
                "description": "a level: price and quantity",
            }
        case dict():
            return {key: _with_numbers(value) for key, value in schema.items()}
        case list():
            return [_with_numbers(value) for value in schema]
        case _:
            return schema
