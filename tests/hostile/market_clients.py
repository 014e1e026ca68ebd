"""Anonymous clients that want prices, books and trades, all of them at once: rows of section 1 of issue 16.

What each docstring calls right holds for everybody else at the same time: ``/healthz`` answers, and a good reader loses
nothing and waits for nothing.
"""

from __future__ import annotations

import itertools
import re
from contextlib import suppress
from typing import Final

import trio

from tests.hostile.target import GONE, PAUSE_S, Found, Pace, Target, heard, hold, note

LINGER_RATE: Final = 3.5  # requests a second
LINGER_SYMBOLS: Final = 200
LINGER_KINDS: Final = ("ticker", "mini_ticker", "book_ticker")
BOOKS: Final = 4_500
BOOKS_RATE: Final = 300.0  # a second
BOOKS_HELD: Final = 400
UNREAD: Final = 600
LOOPS: Final = 8
HISTORIES: Final = 500
REPLAYS: Final = 400
OLD: Final = 4_000  # trades before the newest one
IDLE: Final = 100
BUSY_S: Final = 0.1  # until one that is turned away has heard it
LOOK_S: Final = 1.0
ID: Final = re.compile(rb"^id: *(\S*?)(\d+)$", re.MULTILINE)


async def lingering_streams(target: Target, found: Found) -> None:
    """Open SSE prices of 200 symbols, close at once, next 200, three stream types, 3.5 requests a second.

    Where there is no room for so many it goes on with a quarter of them, down to the last place.
    Today: all 10,000 streams are taken for as long as it goes on; everybody else is ``busy``, the administrator's
    subscribe is 409. Right: lingering streams count against the address that opened them, and go first when room is
    short; pins and administrators take precedence.
    """
    pace, symbols = Pace(LINGER_RATE), target.symbols
    first, size = 0, LINGER_SYMBOLS
    for number in itertools.count():
        await pace.wait()
        round_, place = divmod(first, len(symbols))
        names = symbols[place : place + size]
        kind = LINGER_KINDS[round_ % len(LINGER_KINDS)]
        path = f"/api/ws/sse/prices?stream_type={kind}&symbols={','.join(names)}"
        if await _open_and_close(target, found, number, path):
            first += len(names)
        else:
            size = max(1, size // 4)


async def many_books(target: Target, found: Found) -> None:
    """Open order books, close at once, 300 a second, up to 4,500, of which 48 a minute may be asked for.

    Today: the loop is blocked for 0.7 s again and again at 2,000 books, 34 s at 4,500. Right: never longer than 20 ms,
    with any number of books.
    """
    pace = Pace(BOOKS_RATE)
    async with trio.open_nursery() as nursery:
        for number, name in enumerate(itertools.islice(itertools.cycle(target.symbols), BOOKS)):
            await pace.wait()
            nursery.start_soon(_open_and_close, target, found, number, f"/api/ws/sse/depth?symbol={name}")
        await trio.sleep_forever()


async def _open_and_close(target: Target, found: Found, number: int, path: str) -> bool:
    """Whether it was let in."""
    with suppress(*GONE):
        async with await target.dial(number) as stream:
            await stream.send_all(target.request(path))
            head = await heard(stream, b"\r\n\r\n")
            return note(found, head + await heard(stream, b"busy", within_s=BUSY_S))
    return False


async def books_of_one_address(target: Target, found: Found) -> None:
    """Hold 400 order books.

    Today: ``GET /api/ws/depth`` of everybody else is 504. Right: snapshots are shared fairly between addresses, a first
    snapshot for a new reader has a reserve, and an address may have fewer order books than streams.
    """
    symbols = target.symbols

    def request(number: int) -> bytes:
        return target.request(f"/api/ws/sse/depth?symbol={symbols[number % len(symbols)]}")

    await hold(target, found, request, count=BOOKS_HELD, reads=True)


async def unread_prices(target: Target, found: Found) -> None:
    """600 connections that ask ``/api/ws/prices`` (646 KB where 3,000 symbols have a price) and do not read.

    Today: 413 MB, ``/healthz`` 4 s. Right: connections for each address are limited from the accept on, large answers
    are rendered once and shared, and what waits for one connection is bounded.
    """
    await hold(target, found, lambda _: target.request("/api/ws/prices"), count=UNREAD)


async def streams_in_a_loop(target: Target, found: Found) -> None:
    """``GET /api/ws/streams`` with 3,000 streams, from 8 connections, one request after another.

    Today: 22-45 ms each; others wait 156 ms. Right: the answer is cached and shared, and anonymous REST has a rate
    limit for each address: 429 with ``Retry-After``.
    """
    async with trio.open_nursery() as nursery:
        for number in range(LOOPS):
            nursery.start_soon(_ask_on, target, found, number, target.request("/api/ws/streams"))


async def _ask_on(target: Target, found: Found, number: int, request: bytes) -> None:
    while True:
        with suppress(*GONE):
            async with await target.dial(number) as stream:
                while True:
                    await stream.send_all(request)
                    head = await heard(stream, b"\r\n\r\n")
                    if not head:
                        break
                    note(found, head)
                    if not await _take_body(stream, head):
                        break
        await trio.sleep(PAUSE_S)


async def _take_body(stream: trio.SocketStream, data: bytes) -> bool:
    """Read an answer to its end; whether another may follow."""
    head, _, begun = data.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    if length is None:
        return False
    left = int(length[1]) - len(begun)
    while left > 0:
        more = await stream.receive_some(2**20)
        if not more:
            return False
        left -= len(more)
    return b"connection: close" not in head.lower()


async def trades_of_many_symbols(target: Target, found: Found) -> None:
    """Read the trades of 500 symbols.

    Today: 840 B for each trade of the history, 3.4 MB for each stream, 34 GB at the limits. Right: one limit in bytes
    for all histories together; the least read go first.
    """
    symbols = target.symbols

    def request(number: int) -> bytes:
        return target.request(f"/api/ws/sse/trades?symbol={symbols[number % len(symbols)]}")

    await hold(target, found, request, count=HISTORIES, reads=True)


async def unread_replays(target: Target, found: Found) -> None:
    """400 SSE clients that come back with an old ``Last-Event-ID``, and do not read.

    Today: 0.95 MB each, kept. Right: a replay is sliced from the history as the socket takes it, never joined for one
    client.
    """
    path = f"/api/ws/sse/trades?symbol={target.symbols[-1]}"
    async with await target.dial() as stream:
        await stream.send_all(target.request(path))
        epoch, newest = (ID.findall(await heard(stream, within_s=LOOK_S)) or [(b"", b"0")])[-1]
    old = f"last-event-id: {epoch.decode()}{max(0, int(newest) - OLD)}\r\n"
    await hold(target, found, lambda _: target.request(path, more=old), count=REPLAYS)


async def idle_connections(target: Target, found: Found) -> None:
    """100 connections that ask once and then stay; meant for a server with ``ulimit -n 64``.

    Today: newcomers are locked out for 75 s, with ten tracebacks a second. Right: the keep-alive of idle ones shortens
    under pressure; one line in the log each minute.
    """
    await hold(target, found, lambda _: target.request("/api/ws/status"), count=IDLE)
