"""What is cut ahead of the library is what the library would have said: same messages, same order, same errors."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from komas.venues.core.frame_reader import BEGINNING, Cut, Frames, Handshake, Then

MOST = 70_000

Said = list[tuple[str, object]]


def frame(first: int, payload: bytes, *, written_in: int | None = None, mask: int = 0) -> bytes:
    """One frame; ``written_in`` is how many bytes the length takes, by default as few as possible."""
    length = len(payload)
    written_in = (0 if length < 126 else 2 if length < 2**16 else 8) if written_in is None else written_in
    written = {0: bytes([length & 127 | mask]), 2: struct.pack("!BH", 126 | mask, length & 0xFFFF)}
    written[8] = struct.pack("!BQ", 127 | mask, length)
    return bytes([first]) + written[written_in] + payload


PARTS = (frame(0x01, b"one"), frame(0x89, b""), frame(0x00, b"two"), frame(0x8A, b""), frame(0x80, b"three"))


class Library:
    """wsproto as a client, and what it said."""

    def __init__(self) -> None:
        self.said: Said = []
        self.is_over = False
        self._connection = Connection(ConnectionType.CLIENT)
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> None:
        if self.is_over or not data:
            return
        self._connection.receive_data(data)
        for event in self._connection.events():
            match event:
                case TextMessage() | BytesMessage():
                    self._parts.append(event.data.encode() if isinstance(event.data, str) else bytes(event.data))
                    if event.message_finished:
                        self.said.append(("message", b"".join(self._parts)))
                        self._parts.clear()
                case Ping() | Pong():
                    self.said.append((type(event).__name__, bytes(event.payload)))
                case CloseConnection():
                    self.said.append(("close", event.code))
                    self.is_over = True
                    return


def alone(pieces: Iterable[bytes]) -> Said:
    """What the library says to it all."""
    library = Library()
    for piece in pieces:
        library.feed(piece)
    return library.said


def cut_ahead(pieces: Iterable[bytes], most: int = MOST) -> Said:
    """What is said where messages are cut out first."""
    library, frames = Library(), Frames(most)
    is_theirs = False
    for piece in pieces:
        if is_theirs:
            library.feed(piece)
            continue
        frames.feed(piece)
        for cut in cuts(frames):
            library.said += [("message", message) for message in cut.messages]
            before = len(library.said)
            library.feed(cut.odd)
            if cut.then is Then.MESSAGE:
                assert library.said[before:] == library.said[before:][:1]
                assert library.said[-1][0] in ("message", "close")
            is_theirs = cut.then is Then.THEIRS
            if library.is_over:
                return library.said
    library.feed(frames.rest())  # the stream ends
    return library.said


def cuts(frames: Frames) -> Iterator[Cut]:
    """Cut until there is nothing left to do but to read."""
    while True:
        cut = frames.cut()
        yield cut
        if cut.then in (Then.READ, Then.THEIRS):
            return


LENGTHS = st.sampled_from([0, 1, 125, 126, 127, 300, 65_535, 65_536])
TEXTS = st.one_of(
    st.text(max_size=40).map(str.encode),
    LENGTHS.map(lambda length: b"a" * length),
    st.sampled_from(["币安人".encode(), "币安人".encode() * 50, b"\xc3\xa9" * 63]),
)
NOT_TEXTS = st.sampled_from([b"\xff", b"a\xe5\xb8", b"\xed\xa0\x80", b"ok" * 100 + b"\xc3"])


@st.composite
def in_several(draw: st.DrawFn) -> bytes:
    """A message in several frames, with pings in between; sometimes left unfinished."""
    parts = draw(st.lists(TEXTS, min_size=2, max_size=4))
    first = draw(st.sampled_from([0x01, 0x02]))
    ping = draw(st.sampled_from([b"", frame(0x89, b"p")]))
    last = draw(st.sampled_from([0x80, 0x80, 0x80, 0x00]))
    middle = b"".join(ping + frame(0x00, part) for part in parts[1:-1])
    return frame(first, parts[0]) + middle + ping + frame(last, parts[-1])


ORDINARY = st.one_of(
    TEXTS.map(lambda text: frame(0x81, text)),
    TEXTS.map(lambda text: frame(0x81, text)),
    TEXTS.map(lambda text: frame(0x82, text)),
    st.binary(max_size=125).map(lambda payload: frame(0x89, payload)),
    st.binary(max_size=125).map(lambda payload: frame(0x8A, payload)),
    in_several(),
)
ODD = st.one_of(
    NOT_TEXTS.map(lambda text: frame(0x81, text)),
    st.sampled_from(
        [
            frame(0x88, b""),
            frame(0x88, struct.pack("!H", 1008) + b"Too many requests"),
            frame(0x88, b"\x03"),
            frame(0x88, struct.pack("!H", 1001) + b"\xff"),
            frame(0x80, b"nothing goes on"),
            frame(0x00, b"nothing goes on"),
            frame(0xC1, b"compressed"),
            frame(0x91, b"reserved"),
            frame(0x83, b"unknown"),
            frame(0x8B, b"unknown"),
            frame(0x81, b"masked", mask=128),
            frame(0x81, b"wasteful", written_in=2),
            frame(0x81, b"wasteful" * 20, written_in=8),
            frame(0x82, b"wasteful", written_in=2),
            frame(0x81, b"half", written_in=2)[:3],
            frame(0x09, b"a ping in several frames"),
            frame(0x89, b"a ping too long" * 9),
            frame(0x81, b"x" * (MOST + 1)),
            frame(0x81, b"beyond all bounds", written_in=8)[:2] + b"\xff" * 8,
        ]
    ),
    st.binary(min_size=1, max_size=30),
)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Frames, and how the network cut them."""
    sent = b"".join(draw(st.lists(st.one_of(ORDINARY, ORDINARY, ORDINARY, ODD), max_size=8)))
    places = draw(st.one_of(st.just([]), st.lists(st.integers(0, len(sent)), max_size=12)))
    if draw(st.booleans()) and len(sent) < 400:
        places = list(range(len(sent)))  # byte by byte
    edges = [0, *sorted(places), len(sent)]
    return [sent[start:stop] for start, stop in pairwise(edges) if stop > start]


@settings(max_examples=400, deadline=None)
@given(streams())
@example([frame(0x81, b"a" * 65_536)])
@example([frame(0x81, b"a" * 200) + frame(0x81, b"b" * 200)[:3], frame(0x81, b"b" * 200)[3:]])
@example([frame(0x01, b"begun"), frame(0x81, b"in between")])
@example([frame(0x81, b"wasteful" * 20, written_in=8), frame(0x81, b"never seen")])
@example([frame(0x81, b"\xff"), frame(0x81, b"never seen")])
@example([frame(0x81, b"masked", mask=128), frame(0x81, b"never seen")])
def test_the_same_messages_order_and_errors_as_the_library_alone(pieces: list[bytes]) -> None:
    """Any frames, cut anywhere by the network."""
    assert cut_ahead(pieces) == alone(pieces)


def test_a_burst_is_cut_in_one_go() -> None:
    """One call for everything that a read brought."""
    frames = Frames(MOST)
    frames.feed(b"".join(frame(0x81, b'{"stream":"%d"}' % number) for number in range(300)))
    cut = frames.cut()
    assert (len(cut.messages), cut.odd, cut.then) == (300, b"", Then.READ)


@settings(max_examples=100, deadline=None)
@given(st.lists(ORDINARY.filter(lambda sent: sent[0] & 0x80), max_size=6))
def test_pings_binaries_and_long_texts_do_not_end_the_cutting(sent: list[bytes]) -> None:
    """The library gets what is its own, and the next text is cut out again."""
    frames = Frames(MOST)
    frames.feed(b"".join([*sent, *PARTS, frame(0x81, b"the end")]))
    seen = list(cuts(frames))
    assert seen[-1].then is Then.READ
    assert [message for cut in seen for message in cut.messages][-1] == b"the end"
    assert not any(cut.odd.startswith(b"\x81") for cut in seen)


def test_a_long_frame_in_many_reads_is_put_together_once() -> None:
    """Its parts wait side by side, and are joined when the last has come."""
    frames, text = Frames(MOST), b"x" * 65_000
    messages, sent = [], frame(0x81, text)
    for start in range(0, len(sent), 100):
        frames.feed(sent[start : start + 100])
        cut = frames.cut()
        assert cut.then is Then.READ
        messages += cut.messages
    assert messages == [text]
    assert frames.rest() == b""


@pytest.mark.parametrize("header", [b"\x89\x7e", b"\x8a\x7f", b"\x88\x7e"])
def test_a_long_control_frame_is_the_librarys_by_its_first_two_bytes(header: bytes) -> None:
    """Nothing of it is waited for."""
    frames = Frames(MOST)
    frames.feed(header)
    assert frames.cut() == Cut([], header, Then.THEIRS)


def test_what_is_too_long_is_the_librarys_at_once() -> None:
    """Its bytes are not waited for."""
    frames = Frames(1000)
    frames.feed(frame(0x81, b"x" * 2000)[:10])
    assert frames.cut().then is Then.THEIRS


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 4000).map(lambda size: b"\xc3\xa9" * (size // 2) + b"a" * (size % 2)), max_size=6),
    st.integers(1, 1500),
)
def test_of_a_text_that_is_too_long_the_beginning_is_told(texts: list[bytes], size: int) -> None:
    """Cut anywhere by the network; what comes after it is read as if it had not been there."""
    frames, messages, sizes = Frames(1000, 3000), [], []
    sent = b"".join(frame(0x81, text) for text in texts)
    is_theirs = False
    for start in range(0, len(sent), size):
        frames.feed(sent[start : start + size])
        for cut in cuts(frames):
            messages += cut.messages
            sizes += [cut.left_out] if cut.left_out else []
            is_theirs = cut.then is Then.THEIRS
        if is_theirs:
            break
    lengths = [len(text) for text in texts]
    end = next((place for place, length in enumerate(lengths) if length > 3000), len(texts))
    assert messages == [text if len(text) <= 1000 else text[:BEGINNING] for text in texts[:end]]
    assert sizes == [length for length in lengths[:end] if length > 1000]
    assert is_theirs == (end < len(texts))


ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
WAYS_TO_SAY_IT = (
    ACCEPTED,
    b"HTTP/1.1 101\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 101 \r\nUpgrade: websocket\r\n\r\n",
    ACCEPTED.replace(b"\r\n", b"\n"),
)
REFUSED = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 6\r\n\r\nab\r\n\r\n"


@pytest.mark.parametrize("accepted", WAYS_TO_SAY_IT)
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_frames_begin_where_an_accepted_handshake_ends(size: int, accepted: bytes) -> None:
    """However it is written, whatever came with it is kept."""
    handshake, library, sent, at = Handshake(), b"", accepted + frame(0x81, b"early"), 0
    early: bytes | None = None
    while early is None:
        theirs, early = handshake.feed(sent[at : at + size])
        library += theirs
        at += size
    assert library == accepted
    assert early == sent[len(accepted) : at]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_refused_handshake_is_the_librarys_with_its_body(size: int) -> None:
    """A refusal has a body, which is no frame."""
    handshake, library = Handshake(), b""
    for start in range(0, len(REFUSED), size):
        theirs, ours = handshake.feed(REFUSED[start : start + size])
        library += theirs
        assert ours is None
    assert library == REFUSED
