"""What a server sends, against its own description: every message of the tests of routes is looked up here."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema

from komas.model.codec import encode
from komas.web import asyncapi, openapi

LOOKED_AT_BYTES = 8192  # of each chunk: thousands of trades are all alike


@cache
def document() -> dict[str, Any]:
    """``/asyncapi.json``, whose settings make no difference to what is sent."""
    api = openapi.document(max_symbols=200, max_names=500, signal_types=["mexc_dex"])
    read: dict[str, Any] = json.loads(encode(asyncapi.document(api)))
    return read


@cache
def _validators(path: str, operation: str) -> dict[str, jsonschema.Draft202012Validator]:
    whole = document()
    name, channel = next((name, channel) for name, channel in whole["channels"].items() if channel["address"] == path)
    sent = {each["$ref"].rpartition("/")[2] for each in whole["operations"][f"{name}_{operation}"]["messages"]}
    return {
        each: jsonschema.Draft202012Validator(
            {"components": whole["components"], **channel["messages"][each]["payload"]}
        )
        for each in sent
    }


def is_described(path: str) -> bool:
    """Whether the description has this channel."""
    return any(channel["address"] == path for channel in document()["channels"].values())


def check_message(path: str, message: object, *, operation: str = "send") -> str:
    """Fail unless a message is one of its channel; returns which."""
    assert isinstance(message, dict), message
    return _check(path, str(message["type"]), message, operation)


def check_events(path: str, chunk: bytes) -> list[str]:
    """Fail unless the first events of a chunk are of their channel; returns which they are."""
    found = []
    for event in chunk[:LOOKED_AT_BYTES].decode(errors="replace").split("\n\n")[:-1]:
        lines = dict(line.split(": ", 1) for line in event.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in lines:
            data = json.loads(lines["data"])
            found.append(_check(path, lines.get("event") or data["type"], data, "send"))
    return found


def _check(path: str, name: str, message: object, operation: str) -> str:
    validators = _validators(path, operation)
    assert name in validators, f"{path} is not described to have {name}: {message}"
    wrong = [error.message for error in validators[name].iter_errors(message)]
    assert wrong == [], f"{path}, {name}: {wrong}"
    return name
