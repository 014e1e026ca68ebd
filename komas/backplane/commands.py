"""What is asked of the leader, from any process."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import trio

from komas.backplane.mirror import Mirror
from komas.backplane.ports import BackplaneError, Wishes
from komas.backplane.wire import (
    Book,
    Connect,
    Follow,
    Inquire,
    Pin,
    Rotate,
    Wish,
    key_of,
    read_key,
    read_names,
    write_wish,
)
from komas.errors import Cause, VenueError
from komas.event_log import event_logger
from komas.model.kinds import Kind, Venue
from komas.model.market import Depth, FeedState
from komas.model.streams import Stream

log = event_logger(__name__)

ANSWER_S: Final = 5.0  # for a question that the leader answers from what it knows
INQUIRY_S: Final = 2.0  # for one that only one process can answer, if it is still there
BOOK_S: Final = 10.0  # for an order book, which may have to be taken first
WAITING: Final = 1000  # wishes that were made without waiting
AGAIN_S: Final = 1.0
_book: Final = msgspec.json.Decoder(Depth)
_number: Final = msgspec.msgpack.Decoder(int)


class Commands:
    """What readers and administrators ask of the leader; raises ``VenueError`` where nobody takes it.

    ``run()`` it, or what is asked without waiting is never sent.
    """

    def __init__(self, store: Wishes, mirror: Mirror, node: str, venues: Sequence[Venue]) -> None:
        self._store = store
        self._mirror = mirror
        self._node = node
        self._venues = venues
        self._wishes, self._waiting = trio.open_memory_channel[Wish](WAITING)

    async def run(self) -> None:
        """Send what was asked without waiting, until cancelled."""
        async for wish in self._waiting:
            while True:
                try:
                    await self._store.wish(write_wish(wish))
                except BackplaneError as error:
                    log.warning("the backplane takes no wish", extra={"reason": str(error)})
                    await trio.sleep(AGAIN_S)
                else:
                    break

    def _ask(self, wish: Wish) -> None:
        try:
            self._wishes.send_nowait(wish)
        except trio.WouldBlock:
            log.warning("the backplane takes no wish", extra={"reason": "too many wait"})

    async def _send(self, wish: Wish) -> None:
        try:
            await self._store.wish(write_wish(wish))
        except BackplaneError as error:
            raise _away(error) from error

    async def inquire(self, topic: str, body: bytes) -> bytes | None:
        """Ask whichever process can answer; ``None`` where none does."""
        return await self._answer_of(lambda name: Inquire(self._node, name, topic, body), INQUIRY_S)

    async def inquire_all(self, topic: str, body: bytes, processes: int) -> list[bytes]:
        """What so many processes say, in no order; fewer answers where one is late, or does not know the topic."""
        return await self._answers_of(lambda name: Inquire(self._node, name, topic, body), INQUIRY_S, processes)

    async def _answer_of(self, ask: Callable[[str], Wish], wait_s: float) -> bytes | None:
        return next(iter(await self._answers_of(ask, wait_s, 1)), None)

    async def _answers_of(self, ask: Callable[[str], Wish], wait_s: float, most: int) -> list[bytes]:
        """So many answers, if they come in time."""
        name, found = secrets.token_hex(16), list[bytes]()
        try:
            await self._store.wish(write_wish(ask(name)))
            until = trio.current_time() + wait_s
            while len(found) < most:
                if (answer := await self._store.answer_to(name, max(0.0, until - trio.current_time()))) is None:
                    break
                found.append(answer)
        except BackplaneError as error:
            raise _away(error) from error
        return found

    async def _question(self, ask: Callable[[str], Wish], wait_s: float) -> bytes:
        answer = await self._answer_of(ask, wait_s)
        if answer is None:
            raise VenueError(f"the leader did not answer within {wait_s:g} s", cause=Cause.SILENT)
        return answer

    async def pin(self, streams: Sequence[Stream]) -> None:
        """Keep streams open until they are unpinned."""
        await self._send(Pin(self._node, tuple(map(key_of, streams)), on=True))

    async def unpin(self, streams: Sequence[Stream]) -> None:
        """Let pinned streams go."""
        await self._send(Pin(self._node, tuple(map(key_of, streams)), on=False))

    async def follow(self, kind: Kind) -> tuple[Stream, ...]:
        """Pin every trading symbol from now on; returns the streams of this moment."""
        return await self._follow(kind, on=True)

    async def unfollow(self, kind: Kind) -> tuple[Stream, ...]:
        """Let all symbols of a kind go; returns the streams that were pinned."""
        return await self._follow(kind, on=False)

    async def _follow(self, kind: Kind, *, on: bool) -> tuple[Stream, ...]:
        answer = await self._question(lambda name: Follow(self._node, name, kind, on), ANSWER_S)
        return tuple(map(read_key, read_names(answer)))

    async def rotate(self) -> int:
        """Replace every connection without a gap; returns how many."""
        return sum([await self._rotate(venue) for venue in self._venues])

    async def _rotate(self, venue: Venue) -> int:
        return _number.decode(await self._question(lambda name: Rotate(self._node, name, venue), ANSWER_S))

    async def book(self, stream: Stream, levels: int) -> Depth:
        """The best levels of an order book, once it is true."""
        answer = await self._question(lambda name: Book(self._node, name, key_of(stream), levels, BOOK_S), BOOK_S)
        return _book.decode(answer)

    def connect(self) -> None:
        """Have the exchange connected to."""
        self._ask(Connect(self._node, on=True))

    async def disconnect(self) -> None:
        """Have the connections let go, and wait for it within bounds."""
        await self._send(Connect(self._node, on=False))
        with trio.move_on_after(ANSWER_S):
            while any(self._mirror.report(venue).status.state is not FeedState.DISCONNECTED for venue in self._venues):
                await self._mirror.moved.park()


def _away(error: BackplaneError) -> VenueError:
    log.warning("the backplane does not take what is asked", extra={"reason": str(error)})
    return VenueError("the backplane does not answer", cause=Cause.NETWORK)
