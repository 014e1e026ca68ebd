"""Which requests are refused before anybody reads them."""

from __future__ import annotations

import h11
import pytest

from komas.web.hypercorn.request_head import Refusal, refusal_of

LONGEST = 1000
HOST = b"Host: komas.example:8000\r\n"


def _refusal(head: bytes) -> Refusal | None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    return refusal_of(head, request, LONGEST)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\n" + HOST + b"\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET http://komas.example/ HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a_name.with-all~of.it:\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://Komas.Example:8000/x HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://komas.example/x HTTP/1.1\r\nHost: komas.example:80\r\n\r\n",
        b"GET https://komas.example:443?x HTTP/1.1\r\nHost: komas.example\r\n\r\n",
        b"GET /x?u=http://other.example/ HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"Cookie: a\r\nCookie: b\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\n\n x",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 40\r\n\r\n\r\nContent-Length: 1\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 2000\r\n\r\n" + b"x" * 2000,
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"X-Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
    ],
)
def test_what_has_one_meaning_is_taken(head: bytes) -> None:
    """Whatever is in its body, or behind it."""
    assert _refusal(head) is None


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (HOST + b"X: a\r\n b", "second line"),
        (HOST + b"X: a\r\n\tb", "second line"),
        (HOST + b"X:\r\n Content-Length: 1", "second line"),
        (HOST + b"Content-Length: 1\r\nContent-Length: 1", "more than one Content-Length"),
        (HOST + b"content-length: 1\r\nX: y\r\nCONTENT-LENGTH: 1", "more than one Content-Length"),
        (HOST + b"Content-Length: 1, 1", "more than one Content-Length"),
        (HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked", "both Content-Length and"),
        (HOST + b"Transfer-Encoding: Chunked\r\nContent-Length: 1", "both Content-Length and"),
        (b"Host: a b", "Host header"),
        (b"Host: a\tb", "Host header"),
        (b"Host: a, b", "Host header"),
        (b"Host: user@komas.example", "Host header"),
        (b"Host: user:secret@komas.example:8000", "Host header"),
        (b"Host: komas.example/x", "Host header"),
        (b"Host: http://komas.example", "Host header"),
        (b"Host: komas.example:80:90", "Host header"),
        (b"Host: komas.example:x", "Host header"),
        (b"Host: ::1", "Host header"),
        (b"Host: [::1", "Host header"),
        (b"Host: caf\xe9.example", "Host header"),
        (b"Host: a%zz", "Host header"),
        (HOST + b"Origin: http://a\r\nOrigin: http://a", "more than one origin"),
        (HOST + b"Authorization: Bearer a\r\nAuthorization: Bearer b", "more than one authorization"),
        (HOST + b"Idempotency-Key: a\r\nIdempotency-Key: b", "more than one idempotency-key"),
        (HOST + b"Sec-WebSocket-Key: a\r\nSec-WebSocket-Key: b", "more than one sec-websocket-key"),
        (HOST + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8", "more than one sec-websocket-version"),
    ],
)
def test_what_has_two_meanings_is_refused(lines: bytes, words: str) -> None:
    """In the words of what is wrong; nothing that the client wrote is in them."""
    refusal = _refusal(b"POST / HTTP/1.1\r\n" + lines + b"\r\n\r\n")
    assert refusal is not None
    assert refusal.status == 400
    assert words in refusal.detail


@pytest.mark.parametrize(
    "target",
    [
        b"http://other.example/",
        b"http://komas.example/",  # another port
        b"https://komas.example:443/",
        b"http://user@komas.example:8000/",
        b"http://komas.example:8000@other.example/",
        b"ftp://komas.example:8000/",
        b"http:///x",
    ],
)
def test_a_target_of_another_host_is_refused(target: bytes) -> None:
    """RFC 9112, 3.2.2, would have it win over the Host header, which proxies check."""
    refusal = _refusal(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert refusal is not None
    assert (refusal.status, "another host" in refusal.detail) == (400, True)


def test_chunks_are_newer_than_http_1_0() -> None:
    """RFC 9112, 6.1: such a message is faulty, even if the field is understood."""
    refusal = _refusal(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert refusal is not None
    assert "HTTP/1.0" in refusal.detail


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /%b HTTP/1.1\r\n" % (b"x" * LONGEST) + HOST + b"\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: %b\r\n\r\n" % (b"x" * LONGEST), 431),
    ],
)
def test_a_head_that_is_too_long_is_refused_in_one_piece_too(head: bytes, status: int) -> None:
    """What one client may do does not depend on how its bytes were cut into packets."""
    refusal = _refusal(head)
    assert refusal is not None
    assert refusal.status == status
    assert str(LONGEST) in refusal.detail
