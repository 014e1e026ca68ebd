"""The description: as strict as what reads the requests. ``python -m tests.conformance openapi`` tries far more."""

from __future__ import annotations

import json

import jsonschema
import pytest

from komas.errors import CallerError
from komas.model.codec import encode
from komas.signals.validation import DEPTH, read_changes
from komas.web import openapi
from komas.web.params import read_change, read_subscribe_request
from komas.web.problems import ProblemError

TYPES = ("mexc_dex", "my_own")
DOCUMENT = json.loads(encode(openapi.document(max_symbols=3, max_names=3, signal_types=TYPES)))
SCHEMAS = DOCUMENT["components"]["schemas"]
CALLS = [
    (f"{method.upper()} {path}", call) for path, calls in DOCUMENT["paths"].items() for method, call in calls.items()
]


def _is_described(name: str, body: str) -> bool:
    schema = {**DOCUMENT, "$ref": f"#/components/schemas/{name}"}
    return bool(jsonschema.Draft202012Validator(schema).is_valid(json.loads(body)))


@pytest.mark.parametrize(
    ("body", "is_good"),
    [
        ('{"symbols":["BTCUSDT"]}', True),
        ('{"symbols":["btcusdt"],"stream_type":"kline","interval":"1M"}', True),
        ('{"symbols":["BTCUSDT"],"stream_type":null,"interval":null}', True),
        ('{"symbols":["*"],"stream_type":"mini_ticker"}', True),
        ('{"symbols":["*"],"stream_type":"mark_price"}', False),
        ('{"symbols":["*","BTCUSDT"]}', False),
        ('{"symbols":["A","B","C","D"]}', False),
        ('{"symbols":[]}', False),
        ('{"symbols":["币安人生usdt"]}', True),
        ('{"symbols":["BTC_USDT"]}', False),
        ('{"symbols":["BTC USDT"]}', False),
        ('{"symbols":["BTCUSDT"],"interval":"7m"}', False),
        ('{"symbols":["BTCUSDT"],"x":1}', False),
    ],
)
def test_a_subscription_is_described_as_it_is_read(body: str, is_good: bool) -> None:  # noqa: FBT001 - a table
    """``*`` with a kind that has no such stream was described as good, and ``null`` as wrong."""
    assert _is_described("SubscribeRequest", body) is is_good
    if is_good:
        read_subscribe_request(body.encode(), 3)
    else:
        with pytest.raises(ProblemError):
            read_subscribe_request(body.encode(), 3)


@pytest.mark.parametrize(
    ("body", "is_good"),
    [
        ("{}", True),
        ('{"subscribe":["btcusdt@trade","BTCUSDT@kline_1M"],"unsubscribe":["币安人生usdt@depth@100ms"]}', True),
        ('{"subscribe":["btcusdt@kline_7m"]}', False),
        ('{"subscribe":["btcusdt"]}', False),
        ('{"subscribe":["btc_usdt@trade"]}', False),
        ('{"subscribe":["a@trade","b@trade","c@trade","d@trade"]}', False),
        ('{"subscribe":"btcusdt@trade"}', False),
        ('{"streams":[]}', False),
    ],
)
def test_a_change_of_streams_is_described_as_it_is_read(body: str, is_good: bool) -> None:  # noqa: FBT001 - a table
    """The names are the exchange's own."""
    assert _is_described("StreamChange", body) is is_good
    if is_good:
        read_change(body.encode(), 3)
    else:
        with pytest.raises(ProblemError):
            read_change(body.encode(), 3)


def _nested(levels: int) -> str:
    return "[" * (levels - 1) + "1" + "]" * (levels - 1)


@pytest.mark.parametrize(
    ("data", "is_good"),
    [
        ('{"coin_name":"NB","spread":8.84,"x":{"y":[null,true,"z"]}}', True),
        ('{"spread":null,"mark_price":-1}', True),
        ("{}", False),
        ('{"coin_name":1}', False),
        ('{"spread":"8.84"}', False),
        ('{"mark_price":"1"}', False),
        (f'{{"{"n" * 65}":1}}', False),
        (f'{{"x":{{"{"n" * 65}":1}}}}', False),
        (f'{{"x":{_nested(DEPTH)}}}', True),
        (f'{{"x":{_nested(DEPTH + 1)}}}', False),
        ('{"x":9.99e29}', True),
        ('{"x":-1e30}', False),
        ('{"x":5e30}', False),
        (f'{{"x":{10**30}}}', False),
        ('{"x":1e-30}', True),
        ('{"x":5e-324}', False),
        ('{"x":0}', True),
    ],
)
def test_data_of_a_signal_is_described_as_it_is_read(data: str, is_good: bool) -> None:  # noqa: FBT001 - a table
    """It was described as any object; and 5e30 was taken where 5 followed by thirty zeros was not."""
    body = f'{{"data":{data}}}'
    assert _is_described("SignalChanges", body) is is_good
    if is_good:
        read_changes(body)
    else:
        with pytest.raises(CallerError):
            read_changes(body)


def test_limits_that_are_settings_are_described_as_they_are_set() -> None:
    """How many symbols a request may have, and the types of signals."""
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["Symbols"]["maxItems"] == 3
    assert schemas["SignalType"]["enum"] == list(TYPES)


def test_each_call_has_an_id_of_its_own_a_tag_and_words_for_every_answer() -> None:
    """Generators name functions by the id; 88 answers were "as described"."""
    ids = [call["operationId"] for _, call in CALLS]
    assert len(set(ids)) == len(ids)
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for name, call in CALLS:
        assert set(call["tags"]) <= tags, name
        assert call["summary"], name
        assert all(answer["description"] for answer in call["responses"].values()), name
    assert {tag for _, call in CALLS for tag in call["tags"]} == tags


@pytest.mark.parametrize("name", [name for name, schema in SCHEMAS.items() if "examples" in schema])
def test_each_example_is_what_its_schema_allows(name: str) -> None:
    """A reader copies it."""
    for example in SCHEMAS[name]["examples"]:
        assert _is_described(name, json.dumps(example)), example


def test_a_schema_is_as_its_struct_is_encoded() -> None:
    """A field with a default is always there, one that may be unset is not, a decimal is a number."""
    assert SCHEMAS["Gap"]["required"] == ["stream", "from", "to", "filled"]
    assert SCHEMAS["Problem"]["required"] == ["type", "title", "status", "detail"]
    assert "admitted" in SCHEMAS["SessionRow"]["required"]
    assert SCHEMAS["Trade"]["properties"]["price"]["type"] == "number"
    assert SCHEMAS["Depth"]["properties"]["bids"]["items"]["items"]["type"] == "number"
    assert SCHEMAS["Kline"]["properties"]["interval"]["enum"]
    assert "decimal" not in json.dumps(DOCUMENT)
    assert "`None`" not in json.dumps(DOCUMENT)
