"""Whole text frames out of a server's byte stream, ahead of the WebSocket library. Sans-I/O (RFC 6455, 5.2).

What an exchange sends is nearly all of one kind: unmasked, uncompressed, unfragmented text. Such a frame is found by
its two or four bytes of header. Everything else (the handshake, pings, a close, fragments, whatever breaks the
protocol) is the library's business, and is handed to it byte for byte, in its place between the messages.

The library ends a connection over a message that is too long, and every stream on it pays for one. Here such a text is
passed over; only how it begins is told, for that names its stream.
"""

from __future__ import annotations

import re
from enum import Enum
from struct import Struct
from typing import Final

import msgspec

_TEXT: Final = 0x81  # the only frame of a text
_HEADER: Final = Struct(">HH")  # of a text: two bytes, or with the length in two more
_SHORT_TEXT: Final = 0x8100
_LONG_TEXT: Final = 0x817E
_IN_TWO: Final = 126  # the length is in the next two bytes,
_IN_EIGHT: Final = 127  # or in the next eight
_HEADERS: Final = {_IN_TWO: 4, _IN_EIGHT: 10}  # bytes; any other length fits the header's two
_SHORTEST: Final = {_IN_TWO: _IN_TWO, _IN_EIGHT: 2**16}  # what needs so many bytes for its length
_CONTROL: Final = 0x08
_CONTROL_MAX: Final = 125
BEGINNING: Final = 128  # bytes of a text that is too long: a stream's name is among the first sixty
# As h11 has them, which the library uses: with or without a reason, with or without carriage returns.
_ACCEPTED: Final = re.compile(rb"HTTP/\d\.\d 101[ \r\n]")
_HEAD_END: Final = re.compile(rb"\n\r?\n")


class Then(Enum):
    """What is to be done once the library has got its bytes."""

    READ = "read"  # it got none: more is to be read
    GO_ON = "go on"
    MESSAGE = "message"  # the library has a whole message now
    THEIRS = "theirs"  # whatever comes from here on is the library's


class Cut(msgspec.Struct, frozen=True):
    """Messages, then bytes for the library, then what to do.

    ``left_out`` is the length of the last message in bytes, where that is only the beginning of one that is too long.
    """

    messages: list[bytes]
    odd: bytes
    then: Then
    left_out: int = 0


# (First byte, whether a message in several frames has begun): (what then, whether it has begun after this one).
_STEPS: Final = {
    (_TEXT, False): (Then.GO_ON, False),
    (0x82, False): (Then.MESSAGE, False),  # binary
    (0x01, False): (Then.GO_ON, True),  # the first of several: text,
    (0x02, False): (Then.GO_ON, True),  # or binary
    (0x00, True): (Then.GO_ON, True),  # one more of them
    (0x80, True): (Then.MESSAGE, False),  # the last
    (0x89, False): (Then.GO_ON, False),  # ping
    (0x89, True): (Then.GO_ON, True),
    (0x8A, False): (Then.GO_ON, False),  # pong
    (0x8A, True): (Then.GO_ON, True),
}


class Frames:
    """The frames of one connection, from the first byte after its handshake; ``most`` bounds one message, in bytes.

    Of a text of up to ``passed_over`` bytes only the beginning is taken; a longer one is the library's.

    ``feed()`` it what was read, then ``cut()`` until there is nothing left to do but to read.
    """

    def __init__(self, most: int, passed_over: int = 0) -> None:
        self._most = most
        self._passed_over = passed_over
        self._to_drop = 0  # bytes that are still to come of a text that is passed over
        self._data = b""
        self._at = 0  # the next frame begins here
        self._parts: list[bytes] = []  # what follows, while it is known that the frame is not whole
        self._missing = 0
        self._has_begun = False  # a message in several frames

    def feed(self, data: bytes) -> None:
        """Take some bytes."""
        if self._to_drop:
            dropped, data = data[: self._to_drop], data[self._to_drop :]
            self._to_drop -= len(dropped)
        if self._missing > len(data):
            self._parts.append(data)
            self._missing -= len(data)
        elif self._at < len(self._data):
            self._data = self.rest() + data
        else:
            self._data, self._at = data, 0

    def rest(self) -> bytes:
        """What was not cut yet; nothing is left after that."""
        rest = b"".join((self._data[self._at :], *self._parts))
        self._data, self._at, self._missing = b"", 0, 0
        self._parts.clear()
        return rest

    def cut(self) -> Cut:
        """Take every whole message up to the first thing that is the library's business."""
        data, at, messages, most = self._data, self._at, [], self._most
        end = 0 if self._missing or self._has_begun else len(data)
        while end - at >= _HEADER.size:
            head, length = _HEADER.unpack_from(data, at)
            if head == _LONG_TEXT and length >= _IN_TWO:
                at_text = at + 4
            elif _SHORT_TEXT <= head < _LONG_TEXT:
                at_text, length = at + 2, head - _SHORT_TEXT
            else:
                break
            next_at = at_text + length
            if next_at > end or length > most:
                break
            message = data[at_text:next_at]
            if not message.isascii() and not _is_utf8(message):
                break
            messages.append(message)
            at = next_at
        self._at = at
        if self._missing or at == len(data):
            return Cut(messages, b"", Then.READ)
        return self._step(messages)

    def _step(self, messages: list[bytes]) -> Cut:
        """What to do with a frame that is rare, or not whole yet."""
        data, at = self._data, self._at
        then, has_begun = _STEPS.get((data[at], self._has_begun), (Then.THEIRS, False))
        header, length = self._measure()
        if then is Then.THEIRS or length is None:
            return Cut(messages, self.rest(), Then.THEIRS)
        if length > self._most:
            return self._pass_over(messages, header, length)
        if len(data) - at < header + length:
            self._missing = header + length - (len(data) - at)
            return Cut(messages, b"", Then.READ)
        frame = data[at : at + header + length]
        if frame[0] == _TEXT:
            if not _is_utf8(frame[header:]):
                return Cut(messages, self.rest(), Then.THEIRS)
            messages.append(frame[header:])
            frame = b""
        self._at += header + length
        self._has_begun = has_begun
        return Cut(messages, frame, then)

    def _pass_over(self, messages: list[bytes], header: int, length: int) -> Cut:
        """Take the beginning of a text that is too long, and drop the rest as it comes."""
        if self._data[self._at] != _TEXT or length > self._passed_over:
            return Cut(messages, self.rest(), Then.THEIRS)
        at, there = self._at + header, len(self._data) - self._at - header
        if there < BEGINNING:
            self._missing = BEGINNING - there
            return Cut(messages, b"", Then.READ)
        beginning = self._data[at : at + BEGINNING].decode(errors="ignore").encode()  # it may end within a letter
        self._to_drop = max(0, length - there)
        self._at = at + min(length, there)
        return Cut([*messages, beginning], b"", Then.GO_ON, length)

    def _measure(self) -> tuple[int, int | None]:
        """How long the header is, and what follows it, as far as is known; ``None`` for what breaks the rules."""
        data, at = self._data, self._at
        if len(data) - at < 2:  # noqa: PLR2004 - the shortest header
            return 2, 0
        length = data[at + 1]
        header = _HEADERS.get(length, 2)
        if length > _IN_EIGHT:
            return header, None  # masked, which a server's frame never is
        if data[at] & _CONTROL and length > _CONTROL_MAX:
            return header, None
        if length >= _IN_TWO:
            if len(data) - at < header:
                return header, 0
            shortest, length = _SHORTEST[length], int.from_bytes(data[at + 2 : at + header], "big")
            if length < shortest:
                return header, None
        return header, length if length <= max(self._most, self._passed_over) else None


class Handshake:
    """The answer to a handshake: where its head ends, frames begin, if it was accepted."""

    def __init__(self) -> None:
        self._head = b""
        self._is_refused = False

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Split what was read in what the library reads, and the first bytes of frames; ``None`` before these."""
        if self._is_refused:
            return data, None
        before = len(self._head)
        self._head += data
        end = _HEAD_END.search(self._head)
        if end is None:
            return data, None
        if _ACCEPTED.match(self._head) is None:
            self._is_refused = True  # a body follows
            return data, None
        return data[: end.end() - before], self._head[end.end() :]


def _is_utf8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True
