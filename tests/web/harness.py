"""The web layer over scripted components: no socket, no file of the user's, no clock but trio's."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import httpx
import trio
import trio.testing
from quart_trio import QuartTrio

from komas.hub.hub import Hub
from komas.observability.logs import DailyLog
from komas.settings import Settings
from komas.venues.binance import limits, limits_usdm
from komas.venues.binance.market import BinanceMarket, MarketOptions
from komas.venues.binance.reference import MarketReference
from komas.venues.core.door import RestDoor
from komas.venues.core.rest import open_rest
from komas.venues.core.retry import RetryPolicy
from komas.web.access import Access
from komas.web.app import create_app
from komas.web.cluster import Cluster
from komas.web.commands import OwnCommands
from komas.web.hypercorn.lasting_response import BodyWriter
from komas.web.hypercorn.transport import ClientTransport, Ended, LastingBody, with_transport
from komas.web.limits import ConnectionLimits
from komas.web.local_programs import Endpoint, SpeaksForItself
from komas.web.markets import Markets
from komas.web.past_loader import PastLoader
from komas.web.services import Services
from komas.web.stream_limits import StreamLimits
from tests.signals.harness import SignalHarness, signal_harness
from tests.venues.exchange import ScriptedExchange
from tests.web.described import check_events, check_message, is_described

SYMBOLS = ("BTCUSDT", "ETHUSDT", "币安人生USDT")
NOW_MS = 1_770_000_000_000
PAST = {
    "/api/v3/klines": [
        [open_ms, "1.10", "2.0", "0.5", "1.50", "7.000", open_ms + 299_999, "9.0", 3]
        for open_ms in (NOW_MS - 300_000, NOW_MS)
    ],
    "/api/v3/trades": [
        {"id": number, "price": "61840.10", "qty": "0.50", "time": NOW_MS, "isBuyerMaker": True} for number in (1, 2)
    ],
}
ADMIN_TOKEN = "made-by-the-first-run"
ADMIN = ("Authorization", f"Bearer {ADMIN_TOKEN}")


class Written:
    """A connection that can be written to while the client waits for the next chunk."""

    def __init__(self, send: trio.MemorySendChannel[dict[str, object]]) -> None:
        self._send = send
        self.chunks = 0

    def write_nowait(self, data: bytes) -> int:
        """Take one chunk, or nothing."""
        size, _, rest = data.partition(b"\r\n")
        assert (len(rest), rest[-2:]) == (int(size, 16) + 2, b"\r\n")
        try:
            self._send.send_nowait({"type": "http.response.body", "body": rest[:-2], "more_body": True})
        except (trio.WouldBlock, trio.BrokenResourceError):
            return len(data)
        self.chunks += 1
        return 0

    async def flush(self) -> bool:
        """No rest is ever kept."""
        return False

    is_lost = False

    async def write(self, data: bytes) -> None:
        """Take one chunk once there is room for it."""
        body = data[data.index(b"\r\n") + 2 : -2]
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._send.send({"type": "http.response.body", "body": body, "more_body": True})

    async def close(self) -> None:
        """The end of the response, as the client sees it."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._send.send({"type": "http.response.body", "body": b"", "more_body": False})


class WebHarness:
    """The application, its components, and the exchange behind them."""

    is_direct = False  # whether SSE clients can be written to without waiting

    def __init__(
        self,
        app: QuartTrio,
        services: Services,
        exchange: ScriptedExchange,
        service: SignalHarness,
        futures_exchange: ScriptedExchange,
    ) -> None:
        self.app = app
        self.futures_exchange = futures_exchange
        self.service = service
        self.services = services
        self.exchange = exchange

    async def call(
        self,
        method: str,
        target: str,
        *,
        body: bytes = b"",
        headers: Sequence[tuple[str, str]] = (("Host", "localhost"),),
        client: str = "127.0.0.1",
    ) -> Answer:
        """One whole request and its whole answer, by ASGI."""
        with trio.fail_after(100):
            async with self.stream(target, method=method, body=body, headers=headers, client=client) as events:
                chunks = [chunk async for chunk in events.chunks()]
                return Answer(events.status, events.headers, b"".join(chunks))

    @asynccontextmanager
    async def stream(
        self,
        target: str,
        *,
        method: str = "GET",
        body: bytes = b"",
        headers: Sequence[tuple[str, str]] = (("Host", "localhost"),),
        client: str = "127.0.0.1",
    ) -> AsyncIterator[Events]:
        """One request whose answer is read chunk by chunk; leaving the block is the client's hanging up."""
        scope = {**_scope(target, headers, client), "type": "http", "method": method, "scheme": "http"}
        to_app, app_receive = trio.open_memory_channel[dict[str, object]](math.inf)
        app_send, from_app = trio.open_memory_channel[dict[str, object]](0)
        to_app.send_nowait({"type": "http.request", "body": body, "more_body": False})
        leaving, has_left = trio.CancelScope(), trio.Event()
        writer, taken_over = Written(app_send), list[LastingBody]()

        def take_over(body: LastingBody, ended: Ended | None = None) -> None:
            taken_over.append(body)

        if self.is_direct and not body:
            offered = ClientTransport(writer=writer, take_over=take_over, leaving=leaving)
            scope["state"] = with_transport({}, offered)

        async def run() -> None:
            with app_send:
                app: Callable[..., Awaitable[None]] = self.app
                await app(scope, app_receive.receive, send)
                for lasting in taken_over:  # as the connection goes on
                    with BodyWriter(lasting, writer, _fail):
                        await has_left.wait()

        async def send(message: dict[str, object]) -> None:
            if taken_over:
                return
            try:
                await app_send.send(message)
            except trio.BrokenResourceError:
                await trio.sleep_forever()  # the client hung up; the server's cancellation follows

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield Events(await from_app.receive(), from_app, target.partition("?")[0])
            to_app.send_nowait({"type": "http.disconnect"})
            leaving.cancel()
            has_left.set()
            from_app.close()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    async def socket(
        self,
        target: str,
        *says: str,
        headers: Sequence[tuple[str, str]] = (("Host", "localhost"),),
        subprotocols: Sequence[str] = (),
        client: str = "127.0.0.1",
        for_s: float = 1.0,
    ) -> Visit:
        """One WebSocket, open until the server closes it or ``for_s`` seconds are over."""
        own = {"type": "websocket", "scheme": "ws", "subprotocols": list(subprotocols)}
        scope = {**_scope(target, headers, client), **own, "extensions": {"websocket.http.response": {}}}
        to_app, app_receive = trio.open_memory_channel[dict[str, object]](math.inf)
        app_send, from_app = trio.open_memory_channel[dict[str, object]](math.inf)
        to_app.send_nowait({"type": "websocket.connect"})
        for text in says:
            to_app.send_nowait({"type": "websocket.receive", "text": text, "bytes": None})
        with trio.move_on_after(for_s):
            app: Callable[..., Awaitable[None]] = self.app
            await app(scope, app_receive.receive, app_send.send)
        app_send.close()
        visit = Visit([message async for message in from_app])
        path = target.partition("?")[0]
        for message in visit.heard if is_described(path) else ():
            check_message(path, message)
        return visit


def _scope(target: str, headers: Sequence[tuple[str, str]], client: str) -> dict[str, object]:
    """What the scopes of requests and of sockets have in common."""
    path, _, query = target.partition("?")
    return {
        "asgi": {"spec_version": "2.3", "version": "3.0"},
        "http_version": "1.1",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "client": (client, 1),
        "server": ("localhost", 80),
        "extensions": {},
        "state": {},
    }


class Visit:
    """What a WebSocket client saw."""

    def __init__(self, messages: list[dict[str, object]]) -> None:
        self.subprotocol = next((m.get("subprotocol") for m in messages if m["type"] == "websocket.accept"), None)
        self.heard = [json.loads(str(m["text"])) for m in messages if m["type"] == "websocket.send"]
        self.closed = next(((m["code"], m["reason"]) for m in messages if m["type"] == "websocket.close"), None)
        self.status = next((m["status"] for m in messages if m["type"] == "websocket.http.response.start"), None)


class Answer:
    """Status, headers and the whole body."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Events:
    """A response that is being read; events must be those that are described."""

    def __init__(
        self, start: dict[str, object], receive: trio.MemoryReceiveChannel[dict[str, object]], path: str
    ) -> None:
        status, pairs = start["status"], start["headers"]
        assert isinstance(status, int)
        assert isinstance(pairs, list)
        self.status = status
        self.headers = {name.decode().lower(): value.decode() for name, value in pairs}
        self._receive = receive
        self._path = path
        self._is_stream = self.headers.get("content-type", "").startswith("text/event-stream")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Chunks until the end of the body."""
        more = True
        while more:
            message = await self._receive.receive()
            more = bool(message.get("more_body"))
            body = message["body"]
            assert isinstance(body, bytes)
            self._check(body)
            if body:
                yield body

    async def chunk(self) -> bytes:
        """The next chunk; empty at the end."""
        message = await self._receive.receive()
        body = message["body"]
        assert isinstance(body, bytes)
        self._check(body)
        return body

    def _check(self, body: bytes) -> None:
        if self._is_stream and is_described(self._path):
            check_events(self._path, body)


def _fail(error: BaseException) -> None:
    raise error


async def curl(_peer: Endpoint, _ours: Endpoint) -> bool:
    """A program that speaks for itself."""
    await trio.lowlevel.checkpoint()
    return True


@asynccontextmanager
async def web_harness(
    folder: Path,
    settings: Settings | None = None,
    *,
    is_exposed: bool = False,
    speaks_for_itself: SpeaksForItself = curl,
    has_snapshots: bool = True,
    cluster: Cluster | None = None,
    doors: Sequence[RestDoor] = (),
) -> AsyncIterator[WebHarness]:
    """Open the web layer; the exchange lists ``SYMBOLS`` and plays what it is scripted to."""
    settings = settings or Settings()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == limits.DEPTH_PATH and has_snapshots:
            body = b'{"lastUpdateId":10,"bids":[["100.0","1.0"]],"asks":[["101.0","2.00"]]}'
            return httpx.Response(200, content=body)
        if request.url.path in PAST:
            return httpx.Response(200, json=PAST[request.url.path])
        if request.url.path not in (limits.EXCHANGE_INFO_PATH, limits_usdm.EXCHANGE_INFO_PATH):
            return httpx.Response(404, content=b"{}")
        return httpx.Response(200, json={"symbols": [{"symbol": symbol} for symbol in SYMBOLS]})

    transport = httpx.MockTransport(answer)
    async with (
        open_rest("http://x.test", weight_header="w", weight_per_minute=6000, transport=transport) as rest,
        trio.open_nursery() as nursery,
    ):
        exchange, futures_exchange = ScriptedExchange(nursery), ScriptedExchange(nursery)
        hub = Hub(
            linger_s=settings.linger_s,
            history_length=settings.journal,
            history_bytes=settings.history_bytes,
            clock_ms=lambda: NOW_MS,
        )
        spot = BinanceMarket(
            limits.SPOT,
            MarketReference(limits.SPOT, rest, lambda: NOW_MS),
            sink=hub,
            interest=hub.interest,
            options=MarketOptions(
                url="ws://exchange.test:9443",
                open_stream=exchange,
                clock_ms=lambda: NOW_MS,
                jitter=lambda: 1.0,
                retry_policy=RetryPolicy(attempts=settings.reconnect_attempts or None),
            ),
        )
        futures = BinanceMarket(
            limits_usdm.USD_M,
            MarketReference(limits_usdm.USD_M, rest, lambda: NOW_MS),
            sink=hub,
            interest=hub.interest,
            options=MarketOptions(
                url="ws://futures.test:9443",
                is_primary=False,
                open_stream=futures_exchange,
                clock_ms=lambda: NOW_MS,
                jitter=lambda: 1.0,
            ),
        )
        spot.start_in(nursery)
        futures.start_in(nursery)
        nursery.start_soon(hub.interest.sweep)
        nursery.start_soon(hub.run, settings.heartbeat_s)
        log = DailyLog(folder, 14)
        service = signal_harness(folder, settings)
        nursery.start_soon(service.services.service.run)
        nursery.start_soon(service.services.keeper.run, name="vip keeper")
        access = Access(
            settings,
            settings.admin_token or ADMIN_TOKEN,
            is_exposed=lambda: is_exposed,
            speaks_for_itself=speaks_for_itself,
        )
        markets = Markets([spot, futures])
        past = PastLoader(hub, markets, lambda: NOW_MS, settings.connect_wait_s)
        nursery.start_soon(past.run)
        services = Services(
            settings,
            access,
            hub,
            markets,
            ConnectionLimits(settings),
            StreamLimits(settings, hub.interest),
            service.services,
            log,
            lambda: NOW_MS,
            past,
            OwnCommands(hub.interest, [spot, futures]),
            cluster,
            doors,
        )
        yield WebHarness(create_app(services), services, exchange, service, futures_exchange)
        log.close()
        service.database.close()
        nursery.cancel_scope.cancel()
