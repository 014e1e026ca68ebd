"""REST: every failure is a VenueError, and the weight budget is kept."""

from __future__ import annotations

import ssl
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress

import httpx
import msgspec
import pytest
import trio
import trio.testing

from komas.errors import Cause, VenueError
from komas.venues.core.rest import Rest, open_rest

HEADER = "x-mbx-used-weight-1m"


@asynccontextmanager
async def _asking(answer: Callable[[httpx.Request], httpx.Response]) -> AsyncIterator[Rest]:
    transport = httpx.MockTransport(answer)
    async with open_rest("http://x.test", weight_header=HEADER, weight_per_minute=6000, transport=transport) as rest:
        yield rest


async def test_an_answer_is_decoded_and_its_weight_noted() -> None:
    """Into the type that was asked for."""
    async with _asking(lambda _request: httpx.Response(200, json={"a": 1}, headers={HEADER: "21"})) as rest:
        assert await rest.get("/x", dict[str, int]) == {"a": 1}
        assert rest.used_weight == 21


@pytest.mark.parametrize(
    ("response", "cause", "words"),
    [
        (
            httpx.Response(400, json={"code": -1121, "msg": "Invalid symbol."}),
            Cause.REFUSED,
            "HTTP 400: Invalid symbol.",
        ),
        (httpx.Response(503, text="<html>"), Cause.NETWORK, "HTTP 503"),
        (httpx.Response(451, json={"code": 0, "msg": "restricted"}), Cause.REFUSED, "HTTP 451: restricted"),
        (httpx.Response(200, text="<html>"), Cause.PROTOCOL, "cannot read"),
        (httpx.Response(200, json=[]), Cause.PROTOCOL, "cannot read"),
    ],
)
async def test_a_failure_says_whose_it_is(response: httpx.Response, cause: Cause, words: str) -> None:
    """With the exchange's words."""
    async with _asking(lambda _request: response) as rest:
        with pytest.raises(VenueError, match=words) as caught:
            await rest.get("/x", dict[str, int])
    assert caught.value.cause is cause


async def test_a_host_that_cannot_be_reached() -> None:
    """The road, not the exchange."""

    def answer(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route")

    async with _asking(answer) as rest:
        with pytest.raises(VenueError, match=r"x.test cannot be asked: no route") as caught:
            await rest.get("/x", dict[str, int])
    assert caught.value.cause is Cause.NETWORK


@pytest.mark.parametrize(("status", "headers", "wait_s"), [(429, {"Retry-After": "7"}, 7), (418, {}, 60)])
async def test_nothing_is_asked_before_the_time_that_was_named(
    status: int, headers: dict[str, str], wait_s: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Asking on would turn 429 into 418, and 418 into days."""
    asked_at = []

    def answer(_request: httpx.Request) -> httpx.Response:
        asked_at.append(trio.current_time())
        return httpx.Response(200, json={}) if len(asked_at) > 1 else httpx.Response(status, headers=headers)

    async with _asking(answer) as rest:
        for _ in range(3):
            with pytest.raises(VenueError):
                await rest.get("/x", dict[str, int])
        await trio.sleep(wait_s)
        await rest.get("/x", dict[str, int])
    assert asked_at == [0, wait_s]


async def test_a_spent_budget_waits_for_the_next_minute(autojump_clock: trio.testing.MockClock) -> None:
    """Before the exchange has to say so."""
    async with _asking(lambda _request: httpx.Response(200, json={}, headers={HEADER: "4800"})) as rest:
        await rest.get("/x", dict[str, int])
        with pytest.raises(VenueError, match="asked to wait 60 s"):
            await rest.get("/x", dict[str, int])
        await trio.sleep(60)
        await rest.get("/x", dict[str, int])


async def test_an_answer_that_was_under_way_does_not_shorten_a_ban(autojump_clock: trio.testing.MockClock) -> None:
    """Three calls at once: the longest wait counts; and a weight of thousands of digits is no number to fail on."""
    waits = {"/a": 0.1, "/b": 0.2, "/c": 0.3}

    async def answer(request: httpx.Request) -> httpx.Response:
        await trio.sleep(waits[request.url.path])
        match request.url.path:
            case "/a":
                return httpx.Response(418, headers={"Retry-After": "3000"})
            case "/b":
                return httpx.Response(429, headers={"Retry-After": "1"})
            case _:
                return httpx.Response(200, json={}, headers={HEADER: "9" * 5000})

    async def ask(rest: Rest, path: str) -> None:
        with suppress(VenueError):
            await rest.get(path, dict[str, int])

    async with _asking(answer) as rest:  # type: ignore[arg-type]  # MockTransport takes both kinds
        async with trio.open_nursery() as nursery:
            for path in waits:
                nursery.start_soon(ask, rest, path)
        await trio.sleep(100)
        with pytest.raises(VenueError, match="asked to wait 2900 s more"):
            await rest.get("/a", dict[str, int])


@pytest.mark.parametrize("error", [FileNotFoundError("no such file"), ssl.SSLError("no certificate"), ValueError("x")])
async def test_an_environment_that_trusts_nobody_is_said(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each question, for it may be mended meanwhile."""

    def fail() -> ssl.SSLContext:
        raise error

    monkeypatch.setattr("komas.venues.core.rest.read_trust_store", fail)
    async with open_rest("http://x.test", weight_header=HEADER, weight_per_minute=6000) as rest:
        for _ in range(2):
            with pytest.raises(VenueError, match=rf"x.test cannot be asked: .*{error.args[0]}"):
                await rest.get("/", dict)


async def test_a_question_that_is_given_up_while_the_client_is_made_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One inside OpenSSL, while the process ends, was a segmentation fault; the next question makes the client."""
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def slow() -> ssl.SSLContext:
        begun.set()
        go_on.wait(10)
        trusted = ssl.create_default_context()
        done.set()
        return trusted

    async def answer(_client: httpx.AsyncClient, path: str, **_kwargs: object) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        return httpx.Response(200, json=path)

    monkeypatch.setattr("komas.venues.core.rest.read_trust_store", slow)
    monkeypatch.setattr(httpx.AsyncClient, "get", answer)
    async with open_rest("http://x.test", weight_header=HEADER, weight_per_minute=6000) as rest:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rest.get, "/", dict)
            await trio.to_thread.run_sync(begun.wait)
            nursery.cancel_scope.cancel()
            go_on.set()
        assert done.is_set()
        assert await rest.get("/here", str) == "/here"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["about:blank", "mailto:x", "http://xn--a/login", "http://[::1", "/login"])
async def test_a_redirect_to_nowhere_is_a_failure_like_others(status: int, location: str) -> None:
    """What stands in between the exchange and us may send anything; httpx reads it, whether it follows or not."""
    async with _asking(lambda _request: httpx.Response(status, headers={"Location": location})) as rest:
        with pytest.raises(VenueError):
            await rest.get("/x", dict[str, int])


def _streamed(pieces: Iterable[bytes], **headers: str) -> httpx.Response:
    """An answer that comes in pieces, as from a socket."""
    return httpx.Response(200, content=_in_pieces(pieces), headers=headers)


async def _in_pieces(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await trio.lowlevel.checkpoint()


def _gzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=31)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
async def test_an_answer_may_be_packed(encoding: str) -> None:
    """And is unpacked, however small the pieces are in which it comes."""
    packed = b"".join(_gzip([b'{"a":', b"1" * 10_000, b"}"]))
    single = [packed[place : place + 1] for place in range(len(packed))]
    answer = {"Content-Encoding": encoding}
    async with _asking(lambda _request: _streamed(single, **answer)) as rest:
        found = await rest.get("/x", dict[str, msgspec.Raw])
    assert bytes(found["a"]) == b"1" * 10_000


@pytest.mark.parametrize("is_list", [False, True])
async def test_a_bomb_is_not_unpacked(*, is_list: bool) -> None:
    """Five megabytes that unpack to five gigabytes: reading ends where it is more than any answer has."""
    sent = 0

    def counted() -> Iterator[bytes]:
        nonlocal sent
        for piece in _gzip(b" " * 2**20 for _ in range(5_000)):
            sent += len(piece)
            yield piece

    async with _asking(lambda _request: _streamed(counted(), **{"Content-Encoding": "gzip"})) as rest:
        with pytest.raises(VenueError, match=r"/x answered more than [\d,]+ bytes") as caught:
            await (rest.get_each("/x", "a", dict, most=9) if is_list else rest.get("/x", dict))
        assert caught.value.cause is Cause.PROTOCOL
        assert sent < 2**16


@pytest.mark.parametrize("packs", [False, True])
async def test_an_answer_that_is_too_long_is_not_read_to_its_end(*, packs: bool) -> None:
    """Also one that is not packed, and one that goes on after the end of what was packed."""
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        if packs:
            yield b"".join(_gzip([b"{}"]))
        while sent < 2**30:
            sent += 2**16
            yield b" " * 2**16

    headers = {"Content-Encoding": "gzip"} if packs else {}
    async with _asking(lambda _request: _streamed(endless(), **headers)) as rest:
        with pytest.raises(VenueError, match="answered more than"):
            await rest.get("/x", dict)
    assert sent <= 2**20


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [
        ("br", b"x", "that was not asked for"),
        ("gzip, gzip", b"x", "that was not asked for"),
        ("gzip", b"{}", "cannot be unpacked"),
    ],
)
async def test_an_answer_that_cannot_be_unpacked_is_a_failure(encoding: str, body: bytes, words: str) -> None:
    """With words, and the exchange's fault."""
    async with _asking(lambda _request: _streamed([body], **{"Content-Encoding": encoding})) as rest:
        with pytest.raises(VenueError, match=words) as caught:
            await rest.get("/x", dict)
    assert caught.value.cause is Cause.PROTOCOL


def _broken() -> Iterator[bytes]:
    yield b" "
    raise httpx.ReadError("cut")


async def _dripping() -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await trio.sleep(1)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", lambda: _in_pieces(b" " * 2**16 for _ in range(100))),
        ("gzip", lambda: _in_pieces([b"{}"])),
        ("br", lambda: _in_pieces([b"x"])),
        ("", lambda: _in_pieces(_broken())),
        ("", _dripping),
    ],
    ids=["too long", "cannot be unpacked", "another encoding", "cut", "too slow"],
)
@pytest.mark.parametrize("status", [403, 418, 429, 503])
async def test_a_refusal_counts_whatever_becomes_of_its_body(
    encoding: str,
    body: Callable[[], AsyncIterator[bytes]],
    status: int,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its Retry-After and its weight were lost with a body over the limit, and a ban was asked into."""
    headers = {"Retry-After": "7", HEADER: "21", "Content-Encoding": encoding}
    async with _asking(lambda _request: httpx.Response(status, headers=headers, content=body())) as rest:
        with pytest.raises(VenueError, match=f"HTTP {status}") as caught:
            await rest.get("/x", dict)
        assert (caught.value.status, caught.value.retry_after_s, rest.used_weight) == (status, 7, 21)
        if status in (418, 429):
            with pytest.raises(VenueError, match="asked to wait"):
                await rest.get("/x", dict)


async def test_others_run_while_an_answer_is_unpacked_and_read() -> None:
    """It is as large as an answer may be."""
    document = b'{"a":[' + b'{"b":"x"},' * 50_000 + b'{"b":"x"}]}'
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    packed = b"".join(_gzip([document]))
    async with _asking(lambda _request: _streamed([packed], **{"Content-Encoding": "gzip"})) as rest:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            assert len(await rest.get_each("/x", "a", dict[str, str], most=50_001)) == 50_001
            nursery.cancel_scope.cancel()
        with pytest.raises(VenueError, match="more than 50,000 a"):
            await rest.get_each("/x", "a", dict[str, str], most=50_000)
    assert turns > len(document) / 2**16 + 50_000 * 4 / 5_000


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"a":[{"b":1}]}', b'{"a":[{"b":"x"}'])
async def test_a_list_that_cannot_be_read_is_a_failure(body: bytes) -> None:
    """Whatever is wrong with it."""
    async with _asking(lambda _request: _streamed([body])) as rest:
        with pytest.raises(VenueError, match="cannot read") as caught:
            await rest.get_each("/x", "a", dict[str, str], most=9)
    assert caught.value.cause is Cause.PROTOCOL


@pytest.mark.parametrize("status", [418, 429])
@pytest.mark.parametrize(
    ("headers", "wait_s"), [({}, 1500), ({"Retry-After": "7"}, 1500), ({"Retry-After": "2000"}, 2000)]
)
async def test_a_ban_that_only_the_body_tells_is_obeyed(
    status: int, headers: dict[str, str], wait_s: int, autojump_clock: trio.testing.MockClock
) -> None:
    """It was asked again each minute inside the ban, which makes it longer; the longer one of two times counts."""
    asked_at = []

    def answer(_request: httpx.Request) -> httpx.Response:
        asked_at.append(trio.current_time())
        if len(asked_at) > 1:
            return httpx.Response(200, json={})
        until = round((time.time() + 1500) * 1000)
        words = f"Way too much request weight used; IP banned until {until}. Please use WebSocket Streams."
        return httpx.Response(status, headers=headers, json={"code": -1003, "msg": words})

    async with _asking(answer) as rest:
        with pytest.raises(VenueError, match="IP banned until") as caught:
            await rest.get("/x", dict[str, int])
        assert caught.value.retry_after_s == pytest.approx(wait_s, abs=5)
        await trio.sleep(wait_s - 10)
        assert not rest.has_room
        with pytest.raises(VenueError, match="asked to wait"):
            await rest.get("/x", dict[str, int])
        await trio.sleep(20)
        await rest.get("/x", dict[str, int])
    assert len(asked_at) == 2


async def test_a_ban_that_is_over_by_our_clock_is_not_asked_into(autojump_clock: trio.testing.MockClock) -> None:
    """The clock is ahead; without a time a minute is waited, as before."""
    words = "IP banned until 1000000000000."
    async with _asking(lambda _request: httpx.Response(418, json={"code": -1003, "msg": words})) as rest:
        with pytest.raises(VenueError):
            await rest.get("/x", dict[str, int])
        await trio.sleep(59)
        with pytest.raises(VenueError, match="asked to wait 1 s"):
            await rest.get("/x", dict[str, int])


async def test_foreign_words_are_cut() -> None:
    """An answer's, and those of the client about what came."""

    def fail(_request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("illegal header line: " + "x" * 10_000)

    for answer in (fail, lambda _request: httpx.Response(400, json={"code": -1, "msg": "x" * 10_000})):
        async with _asking(answer) as rest:
            with pytest.raises(VenueError) as caught:
                await rest.get("/x", dict)
        assert len(str(caught.value)) < 300
