"""What a server may make a watcher keep in memory."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.cli.watch.bounds import ANSWER_BYTES, AnswerBound, EventBound, bound
from komas.errors import CallerError

CHUNK = b"x" * 65_536


def test_a_line_without_an_end_has_one() -> None:
    """After a MiB, not after all memory."""
    events = EventBound()
    for _ in range(16):
        events.take(CHUNK)
    with pytest.raises(CallerError, match="more than 1,048,576 bytes; is it a komas server"):
        events.take(b"x")


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_an_event_that_never_ends_has_an_end_too(end: bytes) -> None:
    """Lines of data are kept until the blank one, in whatever pieces they come."""
    events = EventBound(100)
    with pytest.raises(CallerError):
        for _ in range(30):
            for piece in (b"data: ", b"12345", *(end[at : at + 1] for at in range(len(end)))):
                events.take(piece)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_events_and_comments_for_ever_are_well(end: bytes) -> None:
    """A server says ``: keep-alive`` for days, without a blank line behind it."""
    events = EventBound(100)
    for _ in range(100):
        events.take(b"data: 1" + end + b"id: 7" + end + end)
        events.take(b": keep-alive" + end)
    for _ in range(100):
        events.take(b": keep-alive" + end)


def test_a_comment_without_an_end_is_no_exception() -> None:
    """It is read into memory like any line."""
    events = EventBound(100)
    with pytest.raises(CallerError):
        events.take(b":" + b" " * 100)


@given(st.lists(st.sampled_from([b"data: 123456789", b"\n", b"\r", b"\r\n", b":", b"id"]), max_size=60), st.data())
def test_pieces_change_nothing(parts: list[bytes], data: st.DataObject) -> None:
    """What is refused as a whole is refused byte by byte, and the other way round."""
    text = b"".join(parts)
    size = data.draw(st.integers(1, 7))

    def is_refused(pieces: list[bytes]) -> bool:
        events = EventBound(60)
        try:
            for piece in pieces:
                events.take(piece)
        except CallerError:
            return True
        return False

    assert is_refused([text]) == is_refused([text[at : at + size] for at in range(0, len(text), size)])


def test_an_answer_without_an_end_has_one() -> None:
    """A status of many streams is well below it."""
    answer = AnswerBound()
    for _ in range(ANSWER_BYTES // len(CHUNK)):
        answer.take(CHUNK)
    with pytest.raises(CallerError, match="more than 67,108,864 bytes"):
        answer.take(b"x")


async def test_what_is_compressed_is_not_unpacked() -> None:
    """A few bytes of it may be gigabytes."""
    with pytest.raises(CallerError, match="compresses"):
        await bound(httpx.Response(200, headers={"Content-Encoding": "GZIP"}))
