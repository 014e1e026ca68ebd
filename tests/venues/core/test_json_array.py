"""One array of a large document, cut into its elements."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.venues.core.json_array import NoArray, elements

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.text(min_size=90, max_size=120),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def _found(document: bytes) -> list[object]:
    return [json.loads(element) for element in elements(document, "symbols") if element]


@given(
    before=st.dictionaries(st.text(), _VALUES, max_size=3),
    symbols=st.lists(st.dictionaries(st.text(), _VALUES, max_size=3), max_size=4),
    after=st.dictionaries(st.text(), _VALUES, max_size=3),
    is_ascii=st.booleans(),
)
def test_elements_are_those_that_a_decoder_finds(
    *, before: dict[str, object], symbols: list[object], after: dict[str, object], is_ascii: bool
) -> None:
    """Whatever stands around them, and whatever is in them: quotes, escapes, brackets in strings, long strings."""
    document = {**before, "symbols": symbols, **after}
    document["symbols"] = symbols
    assert _found(json.dumps(document, ensure_ascii=is_ascii).encode()) == symbols


@pytest.mark.parametrize("shift", range(4090, 4110))
def test_windows_end_anywhere(shift: int) -> None:
    """In the key, in a string, between two elements."""
    symbols = [{"symbol": f"S{number}", "x": 'a"\\b[{'} for number in range(200)]
    assert _found(json.dumps({"a": "x" * shift, "symbols": symbols}).encode()) == symbols


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b'{"a":1}',
        b'{"symbols":{}}',
        b'{"symbols":[{}',
        b'{"a":{"symbols":[{}]}}',
        b'{"a":"symbols","b":[{}]}',
    ],
)
def test_a_document_without_the_array_is_refused(document: bytes) -> None:
    """And one that ends within it."""
    with pytest.raises(NoArray):
        _found(document)


@pytest.mark.parametrize(
    "piece",
    [b'"a",', b'"', b'\\"', b'"\\"",', b"1", b"{},", b"[[]],", b'"%b",' % (b"x" * 5000), b"x" * 100],
)
def test_others_run_in_between_whatever_is_in_it(piece: bytes) -> None:
    """There is a pause for each some kilobytes, also where nothing is found."""
    document = b'{"a":[' + piece * (2**20 // len(piece))
    pauses = 0
    with pytest.raises(NoArray):
        for element in elements(document, "symbols"):
            pauses += not element
    assert pauses >= 4
