"""Clients of the signals that have a token, and abuse it: rows of section 1 of issue 16."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Final

import trio

from komas.simulator import frames
from tests.hostile.target import GONE, Found, Target, heard, hold, note

PAGES: Final = 60
VIP_SOCKETS: Final = 10  # of one user
FLOOD: Final = 200  # messages at once; 20 are allowed
PAUSE_S: Final = 0.3
AWAY_S: Final = 1.5
STAY_S: Final = 4.0
KNOWN_ID: Final = 1_000
COMERS: Final = 8
PING: Final = bytes((frames.FIN | frames.TEXT, 0x80 | 15)) + b"\0\0\0\0" + b'{"type":"ping"}'
GREETED: Final = b'"type":"connected"'
CLOSED: Final = struct.pack("!B", frames.FIN | frames.CLOSE)


async def unread_signals(target: Target, found: Found) -> None:
    """Sixty pages of ``GET /api/signals`` at their largest that are not read.

    Today: a page is bounded in rows, so that they are 1 GiB. Right: bounded in bytes.
    """
    more = f"authorization: Bearer {target.token}\r\n"
    await hold(target, found, lambda _: target.request("/api/signals?limit=1000", more=more), count=PAGES)


async def vip_that_floods(target: Target, found: Found) -> None:
    """A VIP opens all the sockets that it may, asks for everything, reads nothing, floods, leaves, and comes again.

    One half hangs up, the other only says that it will send no more. Today: its places are kept for 5-28 s. Right: they
    are free at once, or within a second where the client may still read why. ``too late`` counts those that were not
    let in when they came again.
    """
    async with trio.open_nursery() as nursery:
        while True:
            async with trio.open_nursery() as volley:
                for number in range(VIP_SOCKETS):
                    volley.start_soon(_flood, target, found, number, nursery)
            await trio.sleep(AWAY_S)


async def _flood(target: Target, found: Found, number: int, keepers: trio.Nursery) -> None:
    with suppress(*GONE):
        stream = await target.dial(number, reads=False)
        await stream.send_all(target.upgrade(f"/ws/signals?token={target.token}&since_id=1"))
        answer = await heard(stream, GREETED, CLOSED)
        found["let in" if GREETED in answer else "too late"] += 1
        keepers.start_soon(_leave, stream, number)


async def _leave(stream: trio.SocketStream, number: int) -> None:
    with suppress(*GONE):
        async with stream:
            await stream.send_all(PING * FLOOD)
            if number % 2:
                await stream.send_eof()
                await trio.sleep(STAY_S)


async def old_since_id(target: Target, found: Found) -> None:
    """A VIP comes back again and again with the id of an old signal of 300,000.

    Today: the query scans history: 84 ms. Right: an index.
    """
    async with trio.open_nursery() as nursery:
        for number in range(COMERS):
            nursery.start_soon(_come_back, target, found, number)


async def _come_back(target: Target, found: Found, number: int) -> None:
    while True:
        with suppress(*GONE):
            async with await target.dial(number) as stream:
                began = trio.current_time()
                await stream.send_all(target.upgrade(f"/ws/signals?token={target.token}&since_id={KNOWN_ID}"))
                answer = await heard(stream, b"new_signal", CLOSED)
                if note(found, answer) and b"new_signal" in answer:
                    took_ms = int(1000 * (trio.current_time() - began))
                    found["slowest ms"] = max(found["slowest ms"], took_ms)
        await trio.sleep(PAUSE_S)
