"""``komas watch``: what a komas server sends, live in the terminal, read through its own public endpoints.

On a terminal it is a table that redraws itself; into a pipe it is one line for each event.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from decimal import Decimal
from typing import Final, Generic, Self, TypeVar

import httpx
import msgspec
import trio
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse
from rich.console import Console
from rich.live import Live
from rich.table import Table

from komas.errors import CallerError, words_of
from komas.model.codec import iso_ms
from komas.model.market import AggTrade, AvgPrice, BookTicker, Depth, Event, Kline, MarkPrice, MiniTicker, Ticker, Trade
from komas.venues.core.proxies import LOOPBACK_DIRECT

RETRY_S: Final = 2.0
ROWS: Final = 20  # newest trades and candles on the screen
READ_TIMEOUT_S: Final = 60.0  # the server sends a comment every 30 s at least

T = TypeVar("T")


class View(msgspec.Struct, frozen=True):
    """What to watch, and where; ``symbols`` as a user writes them."""

    server: str
    what: str
    symbols: str
    interval: str = "1m"
    aggregate: bool = False

    @property
    def path(self) -> str:
        """The endpoint's path."""
        return f"/api/ws/sse/{self.what}"

    @property
    def query(self) -> dict[str, str]:
        """The endpoint's query."""
        if self.what == "prices":
            return {"symbols": self.symbols}
        if self.what == "klines":
            return {"symbol": self.symbols, "interval": self.interval}
        return {"symbol": self.symbols, "aggregate": str(self.aggregate).lower()}


class _Envelope(msgspec.Struct):
    type: str
    data: Event
    timestamp: str


_decoder = msgspec.json.Decoder(_Envelope)


async def watch(view: View, console: Console | None = None) -> None:
    """Show events until cancelled; comes back by itself when the server was away.

    Raises ``CallerError`` with the server's words when it refuses what was asked.
    """
    check_address(view.server)
    console = console or Console()
    screen: _Screen | Lines[Event] = _Screen(view.what, console) if console.is_terminal else Lines(_line)
    timeout = httpx.Timeout(10, read=READ_TIMEOUT_S)
    async with httpx.AsyncClient(base_url=view.server, timeout=timeout, mounts=LOOPBACK_DIRECT) as client:
        if not view.symbols:
            view = msgspec.structs.replace(view, symbols=await _running(client, view))
        last_id, wait_s = "", RETRY_S
        with screen:
            while True:
                try:
                    async for event in _events(client, view, last_id):
                        last_id = event.id or last_id
                        wait_s = wait_s if event.retry is None else event.retry / 1000
                        _show(screen, event)
                except httpx.HTTPError as error:
                    screen.note(f"{view.server}: {words_of(error)}; trying again")
                await trio.sleep(wait_s)


def check_address(server: str) -> None:
    """Raise ``CallerError`` for what is no address of a server."""
    try:
        url = httpx.URL(server)
        is_known = url.scheme in ("http", "https") and url.host and (url.port or 1) < 2**16 and not url.query
    except (httpx.InvalidURL, ValueError):
        is_known = False
    if not is_known:
        raise CallerError(f"--server: got {server!r}; accepted: http://host:port or https://host:port")


async def _events(client: httpx.AsyncClient, view: View, last_id: str) -> AsyncIterator[ServerSentEvent]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with aconnect_sse(client, "GET", view.path, params=view.query, headers=headers) as source:
        await _check(source)
        async for event in source.aiter_sse():
            yield event


async def _check(source: EventSource) -> None:
    if source.response.status_code == httpx.codes.OK:
        return
    if source.response.is_server_error:
        raise httpx.HTTPStatusError(
            f"HTTP {source.response.status_code}", request=source.response.request, response=source.response
        )
    await source.response.aread()
    try:
        problem = source.response.json()
        raise CallerError(f"the server says: {problem['detail']}")
    except (ValueError, KeyError, TypeError):
        raise CallerError(f"the server answered HTTP {source.response.status_code}") from None


async def _running(client: httpx.AsyncClient, view: View) -> str:
    """The symbols that the server streams already, when the user named none."""
    try:
        response = await client.get("/api/ws/streams")
        rows = response.raise_for_status().json()["streams"]
        symbols = list(dict.fromkeys(row["symbol"] for row in rows))
    except httpx.HTTPError as error:
        raise CallerError(f"{view.server} cannot be asked for its streams: {words_of(error)}") from error
    except (ValueError, KeyError, TypeError):
        raise CallerError(f"{view.server} is not a komas server: it does not tell its streams") from None
    if not symbols:
        raise CallerError("name what to watch, for example: komas watch prices BTCUSDT,ETHUSDT")
    return ",".join(symbols) if view.what == "prices" else str(symbols[0])


def _show(screen: _Screen | Lines[Event], event: ServerSentEvent) -> None:
    if not event.data:
        return  # httpx-sse hands out a lone "retry:" as an event without data
    if event.event == "message":
        try:
            shown = _decoder.decode(event.data).data
        except msgspec.MsgspecError as error:
            raise CallerError(f"the server is no komas server, or a newer one: {error}") from None
        screen.show(shown)
    else:
        screen.note(f"{event.event}: {event.data}")


class Lines(Generic[T]):
    """One line for each event, for pipes and files."""

    def __init__(self, render: Callable[[T], str]) -> None:
        self._render = render

    def __enter__(self) -> Self:
        """Nothing is drawn over, so nothing has to be restored."""
        return self

    def __exit__(self, *_exc: object) -> None:
        sys.stdout.flush()

    def show(self, event: T) -> None:
        """Print one event."""
        print(self._render(event), flush=True)

    def note(self, text: str) -> None:
        """Say something about the line itself."""
        print(text, file=sys.stderr, flush=True)


class _Screen:
    """A table that redraws itself."""

    def __init__(self, what: str, console: Console) -> None:
        self._what = what
        self._rows: dict[object, Event] = {}
        self._order: deque[object] = deque(maxlen=ROWS)
        self._note = ""
        self._live = Live(console=console, auto_refresh=False, screen=True)

    def __enter__(self) -> None:
        self._live.__enter__()

    def __exit__(self, *_exc: object) -> None:
        self._live.__exit__(None, None, None)

    def show(self, event: Event) -> None:
        key = _key(event)
        if key not in self._rows:
            if self._what != "prices" and len(self._order) == ROWS:
                del self._rows[self._order[0]]
            self._order.append(key)
        self._rows[key] = event
        self._draw()

    def note(self, text: str) -> None:
        self._note = text
        self._draw()

    def _draw(self) -> None:
        table = Table(caption=self._note or None, expand=True)
        events: Iterable[Event] = self._rows.values()
        for heading in _HEADINGS[self._what]:
            table.add_column(
                heading, justify="left" if heading in ("symbol", "time") else "right", no_wrap=heading != "time"
            )
        for event in events:
            table.add_row(*_cells(event))
        self._live.update(table, refresh=True)


_HEADINGS: Final = {
    "prices": ("time", "symbol", "price", "change %", "high", "low", "volume"),
    "klines": ("time", "symbol", "open", "high", "low", "close", "volume", "state"),
    "trades": ("time", "symbol", "price", "quantity", "side", "id"),
}


def _key(event: Event) -> object:
    match event:
        case Kline():
            return event.timestamp
        case Trade() | AggTrade():
            return event.trade_id
        case _:
            return event.symbol


def _line(event: Event) -> str:
    return "\t".join(_cells(event))


def _cells(event: Event) -> tuple[str, ...]:
    moment = iso_ms(event.timestamp)[11:23]
    match event:
        case Ticker():
            change, rest = f"{event.price_change_percent:+}", _numbers(event.high, event.low, event.volume)
            return (moment, event.symbol, _number(event.price), change, *rest)
        case MiniTicker():
            return (moment, event.symbol, _number(event.price), "", *_numbers(event.high, event.low, event.volume))
        case Kline():
            state = "closed" if event.is_closed else "open"
            bar = _numbers(event.open, event.high, event.low, event.close, event.volume)
            return (iso_ms(event.timestamp)[:16].replace("T", " "), event.symbol, *bar, state)
        case Trade() | AggTrade():
            side = "sell" if event.is_buyer_maker else "buy"
            return (moment, event.symbol, _number(event.price), _number(event.quantity), side, str(event.trade_id))
        case _:
            return (moment, event.symbol, *_quote(event))


def _quote(event: BookTicker | AvgPrice | MarkPrice | Depth) -> tuple[str, ...]:
    match event:
        case BookTicker():
            return _numbers(event.bid_price, event.ask_price)
        case AvgPrice():
            return (_number(event.price),)
        case MarkPrice():
            funding = "" if event.funding_rate is None else _number(event.funding_rate)
            return (_number(event.price), funding)
        case Depth():
            bests = (side[0][0] if side else None for side in (event.bids, event.asks))
            return tuple("" if best is None else _number(best) for best in bests)


def _number(value: Decimal) -> str:
    return format(value, "f")


def _numbers(*values: Decimal) -> tuple[str, ...]:
    return tuple(_number(value) for value in values)
