"""WebSocket frames as the server sends them: unmasked, so that one encoding serves every connection (RFC 6455, 5.2)."""

from __future__ import annotations

import base64
import hashlib
import re
import struct

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 0x1, 0x2, 0x8, 0x9, 0xA, 0x0
FIN = 0x80
SHORT, MEDIUM = 126, 1 << 16
TIMES = re.compile(rb'"[ETtOC]":\d{13}(?!\d)')
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """One frame with its header."""
    first = opcode | (FIN if final else 0)
    size = len(payload)
    if size < SHORT:
        return bytes((first, size)) + payload
    if size < MEDIUM:
        return struct.pack("!BBH", first, SHORT, size) + payload
    return struct.pack("!BBQ", first, SHORT + 1, size) + payload


def text(payload: bytes) -> bytes:
    """A whole text message."""
    return frame(TEXT, payload)


def payload_of(data: bytes) -> bytes:
    """What is in one unmasked frame."""
    size = data[1]
    return data[{SHORT: 4, SHORT + 1: 10}.get(size, 2) :]


def close(code: int | None, reason: str = "") -> bytes:
    """A close frame with any code at all; ``None`` sends none."""
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode())


def wrapped(stream: str, payload: bytes) -> bytes:
    """The combined form of an event."""
    return b'{"stream":"%b","data":%b}' % (stream.encode(), payload)


def in_microseconds(payload: bytes) -> bytes:
    """The event with sixteen digits in every time field; ids, which share a letter with times, are shorter."""
    return TIMES.sub(rb"\g<0>000", payload)


def accept_key(key: str) -> str:
    """The answer to ``Sec-WebSocket-Key``."""
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()  # noqa: S324  # RFC 6455 asks for it
