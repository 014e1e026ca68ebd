"""JSON of thousands of rows, made in slices: others have their turn in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

import trio

from komas.model.codec import encode

SLICE: Final = 100  # rows: 1.5 ms of the rows of /api/ws/streams on a slow machine


R = TypeVar("R")


async def encode_array(rows: Iterable[object]) -> bytes:
    """An array; each row is taken when it is its turn."""
    return b"[%b]" % await _join(encode(rows) for rows in _slices(rows))


async def encode_object(items: Iterable[tuple[str, object]]) -> bytes:
    """An object of names and values."""
    return b"{%b}" % await _join(encode(dict(items)) for items in _slices(items))


async def _join(slices: Iterator[bytes]) -> bytes:
    """The contents of arrays, or of objects, as those of one."""
    contents: list[bytes] = []
    for encoded in slices:
        contents.append(encoded[1:-1])
        await trio.lowlevel.checkpoint()
    return b",".join(contents)


def _slices(rows: Iterable[R]) -> Iterator[list[R]]:
    left = iter(rows)
    while taken := list(islice(left, SLICE)):
        yield taken
