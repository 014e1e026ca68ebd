"""A scripted exchange over memory streams: each dial plays the next act, and is noted with its virtual time."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from komas.errors import Cause, VenueError

Act: TypeAlias = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The exchange's side of one connection."""

    def __init__(self, socket: WebSocketConnection, path: str, stream: trio.abc.Stream) -> None:
        self.socket = socket
        self.path = path
        self.stream = stream
        self.requests: list[tuple[float, dict[str, object]]] = []

    async def say(self, *frames: str) -> None:
        """Send frames."""
        for frame in frames:
            await self.socket.send_message(frame)

    async def hear(self) -> dict[str, object]:
        """Wait for one request, and note when it came."""
        request = json.loads(await self.socket.get_message())
        self.requests.append((trio.current_time(), request))
        return dict(request)

    async def acknowledge(self) -> dict[str, object]:
        """Wait for one request and say yes."""
        request = await self.hear()
        await self.say(json.dumps({"result": None, "id": request["id"]}))
        return request

    async def obey(self) -> None:
        """Say yes to everything, until the client leaves."""
        while True:
            await self.acknowledge()


class ScriptedExchange:
    """What ``open_stream`` is handed in tests."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._acts: list[Act | VenueError | tuple[int, dict[str, str], bytes]] = []
        self._last: Act = _sleep
        self.dialled_at: list[float] = []
        self.peers: list[Peer] = []

    def script(self, *acts: Act | VenueError | tuple[int, dict[str, str], bytes], then: Act | None = None) -> None:
        """Play these acts, one for each dial; ``then`` plays for every dial after them."""
        self._acts += acts
        self._last = then or _sleep

    async def __call__(self, host: str, port: int, *, tls: bool) -> trio.abc.Stream:
        """Take one dial."""
        self.dialled_at.append(trio.current_time())
        act = self._acts.pop(0) if self._acts else self._last
        if isinstance(act, VenueError):
            raise act
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs, act)
        return ours

    async def _serve(self, stream: trio.abc.Stream, act: Act | tuple[int, dict[str, str], bytes]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                request = await wrap_server_stream(nursery, stream)
                if isinstance(act, tuple):
                    status, headers, body = act
                    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
                    await request.reject(status, extra_headers=pairs, body=body)
                else:
                    peer = Peer(await request.accept(), request.path, stream)
                    self.peers.append(peer)
                    await act(peer)
                nursery.cancel_scope.cancel()
        except* (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client hung up
        finally:
            await trio.aclose_forcefully(stream)


REFUSED = VenueError("refused", cause=Cause.NETWORK)


async def _sleep(_peer: Peer) -> None:
    await trio.sleep_forever()


def saying(*frames: str, then: Act | None = None) -> Act:
    """An act: send frames, then go on with another act, or hang up."""

    async def act(peer: Peer) -> None:
        await peer.say(*frames)
        if then is not None:
            await then(peer)

    return act


async def obeying(peer: Peer) -> None:
    """An act: acknowledge every request."""
    await peer.obey()


def listening(act: Act) -> Act:
    """An act beside which every request is acknowledged: a peer that does not read does not hear pongs either."""

    async def both(peer: Peer) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.obey)
            await act(peer)
            nursery.cancel_scope.cancel()

    return both
