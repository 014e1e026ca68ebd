"""Control messages: what is answered to what."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.simulator import frames
from komas.simulator.options import Limits
from komas.simulator.protocol import Reply, RollingWindow, Session


def answer(text: str, limits: Limits | None = None) -> Any:
    """The decoded reply of a fresh session on ``/stream``."""
    session = Session(limits or Limits(), combined=True)
    read = session.read(text)
    reply = read if isinstance(read, Reply) else session.perform(read)
    assert reply.body is not None
    return json.loads(reply.body)


@pytest.mark.parametrize(
    "identity", [1, 0, -5, 2**63 - 1, -(2**63), "abc123", "a" * 36, "a_b", "4f7c2b1e-0d2a-4c6e-9b1f-2a3c4d5e6f70", None]
)
def test_echoes_every_kind_of_id(identity: object) -> None:
    """Signed 64-bit numbers, short texts, null."""
    request = {"method": "SUBSCRIBE", "params": ["a@trade"], "id": identity}
    assert answer(json.dumps(request)) == {"result": None, "id": identity}


@pytest.mark.parametrize("identity", [1.5, True, 2**63, "a" * 37, "a b", "", [1], {}])
def test_refuses_other_ids(identity: object) -> None:
    """Code 2, and null in its place."""
    found = answer(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": identity}))
    assert found["error"]["code"] == 2
    assert "request ID" in found["error"]["msg"]
    assert found["id"] is None


@pytest.mark.parametrize(
    ("request_text", "code", "words"),
    [
        ("not json", 3, "Invalid JSON"),
        ("[" * 8000, 3, "Invalid JSON"),
        ("[]", 2, "JSON object"),
        ("5", 2, "JSON object"),
        ('{"id":1}', 2, "missing field `method`"),
        ('{"method":"SUB","id":1}', 2, "unknown variant `SUB`, expected one of `SUBSCRIBE`"),
        ('{"method":5,"id":1}', 2, "unknown variant"),
        ('{"method":"SUBSCRIBE","params":"a@trade","id":1}', 2, "sequence"),
        ('{"method":"SUBSCRIBE","params":["trade"],"id":1}', 2, "invalid stream"),
        ('{"method":"SUBSCRIBE","params":["a b@trade"],"id":1}', 2, "invalid stream"),
        ('{"method":"SUBSCRIBE","params":[5],"id":1}', 2, "invalid stream"),
        ('{"method":"LIST_SUBSCRIPTIONS","params":["x"],"id":1}', 2, "too many parameters"),
        ('{"method":"LIST_SUBSCRIPTIONS"}', 2, "request ID"),
        ('{"method":"GET_PROPERTY","params":["speed"],"id":1}', 0, "Unknown property"),
        ('{"method":"GET_PROPERTY","params":[5],"id":1}', 2, "property name must be a string"),
        ('{"method":"GET_PROPERTY","params":[],"id":1}', 2, "property name must be a string"),
        ('{"method":"GET_PROPERTY","params":["combined",true],"id":1}', 2, "too many parameters"),
        ('{"method":"SET_PROPERTY","params":["combined",1],"id":1}', 1, "expected Boolean"),
        ('{"method":"SET_PROPERTY","params":["combined"],"id":1}', 1, "expected Boolean"),
    ],
)
def test_errors(request_text: str, code: int, words: str) -> None:
    """The codes and words of the exchange, nested; flat where that is asked for."""
    nested = answer(request_text)
    assert nested["error"]["code"] == code
    assert words in nested["error"]["msg"]
    flat = answer(request_text, Limits(flat_errors=True))
    assert (flat["code"], flat["msg"], flat["id"]) == (code, nested["error"]["msg"], nested["id"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["method", "params", "id"]) | st.text(), inner),
    )
)
def test_anything_gets_an_answer(request_body: object) -> None:
    """No message breaks the session."""
    assert answer(json.dumps(request_body))


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcdef")), max_size=60))
def test_subscriptions_are_a_set(operations: list[tuple[bool, str]]) -> None:
    """Whatever the order: what was added and not removed, once, in the order of adding."""
    session = Session(Limits(streams=4), combined=True)
    expected: list[str] = []
    for adds, letter in operations:
        name = f"{letter}@trade"
        request = session.read(
            json.dumps({"method": "SUBSCRIBE" if adds else "UNSUBSCRIBE", "params": [name, name], "id": 1})
        )
        assert not isinstance(request, Reply)
        reply = session.perform(request)
        if adds and name not in expected and len(expected) == 4:
            assert reply.close == (1008, "Invalid request")
        elif adds and name not in expected:
            expected.append(name)
            assert reply.added == (name,)
        elif not adds and name in expected:
            expected.remove(name)
            assert reply.removed == (name,)
        assert list(session.names) == expected


@given(st.lists(st.floats(0, 0.5), max_size=60))
def test_a_rolling_window_is_strict(gaps: list[float]) -> None:
    """No stretch of a second holds more than five that were admitted, and five are always admitted."""
    window, now, admitted = RollingWindow(5, 1.0), 0.0, []
    seen: list[float] = []
    for gap in gaps:
        now += gap
        seen.append(now)
        inside = [at for at in seen if at > now - 1.0]
        assert window.admit(now) == (len(inside) <= 5)
        admitted.append(now)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 70_000])
def test_frames_have_headers_of_their_size(size: int) -> None:
    """Seven bits, sixteen, or sixty-four; and the payload is found again."""
    made = frames.text(b"x" * size)
    assert made[0] == 0x81
    assert len(made) - size == (2 if size < 126 else 4 if size < 65_536 else 10)
    assert frames.payload_of(made) == b"x" * size


def test_frames() -> None:
    """Accept keys as in RFC 6455, close frames with and without a code."""
    assert frames.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert frames.close(None) == b"\x88\x00"
    assert frames.close(1008, "no") == b"\x88\x04\x03\xf0no"
