"""The description of what is sent; ``tests/web/harness.py`` holds every message of the tests of routes against it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

import jsonschema
import msgspec
import pytest
import trio.testing

from komas.errors import Closing
from komas.signals import messages
from komas.web import market_messages
from tests.web.described import check_events, check_message, document
from tests.web.harness import web_harness

DOCUMENT = document()
CHANNELS = DOCUMENT["channels"]
SCHEMAS = DOCUMENT["components"]["schemas"]
ROOT = Path(__file__).parents[2]


async def test_it_is_served(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """As JSON, with the settings of this server."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("GET", "/asyncapi.json")
        assert answer.headers["content-type"] == "application/json"
        served = json.loads(answer.body)
        assert served["asyncapi"].startswith("3.")
        assert served["channels"] == CHANNELS
        assert served["components"]["schemas"].keys() == SCHEMAS.keys()


def test_every_reference_leads_somewhere() -> None:
    """A reader of the document follows them."""
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DOCUMENT))):
        place: object = DOCUMENT
        for key in reference.split("/"):
            assert isinstance(place, dict)
            assert key in place, reference
            place = place[key]


def test_every_route_that_streams_is_a_channel() -> None:
    """No event stream and no socket is left out."""
    described = {channel["address"] for channel in CHANNELS.values()}
    source = (ROOT / "komas" / "web" / "openapi.py").read_text("utf-8")
    routes = set(re.findall(r'"(/ws/\w+|/api/ws/sse/\w+)": \{', source))
    assert described == routes


@pytest.mark.parametrize(("path", "module"), [("ws_signals", messages), ("ws_market", market_messages)])
def test_every_struct_of_a_socket_is_a_message_of_it(path: str, module: ModuleType) -> None:
    """One that is written and not described would be known to nobody."""
    tags = {
        struct.__struct_config__.tag
        for struct in vars(module).values()
        if isinstance(struct, type) and issubclass(struct, msgspec.Struct) and struct.__module__ == module.__name__
    }
    assert tags - {None} <= CHANNELS[path]["messages"].keys()


def test_close_codes_are_those_of_the_table() -> None:
    """Each row belongs to one of the sockets at least."""
    rows = {
        (row["code"], row["reason"], row["comesBack"])
        for channel in CHANNELS.values()
        for row in channel.get("x-close-codes", ())
    }
    assert rows == {(each.code, each.reason, each.is_worth_a_retry) for each in Closing}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/ws/signals", {"type": "ping"}),
        ("/ws/signals", {"type": "refresh", "token": "x"}),
        ("/ws/market", {"type": "subscribe", "streams": ["btcusdt@trade"], "id": 1}),
        ("/ws/market", {"type": "unsubscribe", "streams": ["btcusdt@trade"], "id": None}),
        ("/ws/market", {"type": "ping"}),
    ],
)
def test_what_a_client_may_say_is_described(path: str, message: dict[str, object]) -> None:
    """As the documents have it."""
    check_message(path, message, operation="receive")


@pytest.mark.parametrize("name", [name for name, schema in SCHEMAS.items() if "examples" in schema])
def test_each_example_is_what_its_schema_allows(name: str) -> None:
    """A reader copies it."""
    validator = jsonschema.Draft202012Validator({**DOCUMENT, "$ref": f"#/components/schemas/{name}"})
    for example in SCHEMAS[name]["examples"]:
        assert [error.message for error in validator.iter_errors(example)] == []


def test_a_message_that_is_not_described_fails_whatever_test_it_comes_in() -> None:
    """Of an unknown type, and of a known one with a field missing."""
    with pytest.raises(AssertionError, match="not described"):
        check_message("/ws/market", {"type": "news"})
    with pytest.raises(AssertionError, match="expires_at"):
        check_message("/ws/signals", {"type": "expiring"})
    with pytest.raises(AssertionError, match="not described"):
        check_events("/api/ws/sse/trades", b'event: open\ndata: {"connection":"x"}\n\n')
