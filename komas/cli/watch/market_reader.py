"""Reads prices, candles, trades or an order book over SSE, for ever."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import httpx
import msgspec
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse

from komas.cli.watch.records import market_record, notice_record, words
from komas.cli.watch.server import Link, Put, failure_words, open_client, refusal, shown_address
from komas.errors import CallerError
from komas.model.clock import wall_ms

READ_TIMEOUT_S: Final = 60.0  # the server sends a comment every 30 s at least
BUSY: Final = "busy"
_MESSAGE: Final = "message"
_SSE: Final = "text/event-stream"
_ID_LENGTH: Final = 100


class MarketRequest(msgspec.Struct, frozen=True):
    """What to watch; ``symbols`` as a user writes them.

    ``is_screen`` is for eyes: what was before fills the table, and prices come ten times a second at most.
    """

    what: str
    symbols: tuple[str, ...] = ()
    interval: str = "1m"
    aggregate: bool = False
    is_screen: bool = False

    @property
    def path(self) -> str:
        """The endpoint's path."""
        return f"/api/ws/sse/{self.what}"

    @property
    def query(self) -> dict[str, str]:
        """The endpoint's query."""
        rate = {"max_rate": "10"} if self.is_screen else {}
        match self.what:
            case "prices":
                return {"symbols": ",".join(self.symbols), **rate}
            case "klines":
                past = {"history": "200"} if self.is_screen else {}
                return {"symbol": self.symbols[0], "interval": self.interval, **past}
            case "depth":
                return {"symbol": self.symbols[0], "limit": "50" if self.is_screen else "20", **rate}
            case _:
                return {"symbol": self.symbols[0], "aggregate": str(self.aggregate).lower()}


async def with_symbols(server: str, request: MarketRequest) -> MarketRequest:
    """The request, with the symbols that the server streams already where the user named none.

    Raises ``CallerError`` where it streams none.
    """
    if request.symbols:
        return request
    async with open_client(server) as client:
        symbols = await _streamed(client)
    if not symbols:
        raise CallerError(f"name what to watch, for example: komas watch {request.what} BTCUSDT")
    return msgspec.structs.replace(request, symbols=symbols if request.what == "prices" else symbols[:1])


class _Row(msgspec.Struct):
    symbol: str


class _Rows(msgspec.Struct):
    streams: list[_Row]


async def _streamed(client: httpx.AsyncClient) -> tuple[str, ...]:
    try:
        response = (await client.get("/api/ws/streams")).raise_for_status()
        rows = msgspec.json.decode(response.content, type=_Rows).streams
    except httpx.HTTPError as error:
        raise CallerError(
            f"{shown_address(str(client.base_url))} cannot be asked for its streams: {failure_words(error)}"
        ) from error
    except (msgspec.MsgspecError, UnicodeError):
        raise CallerError(
            f"{shown_address(str(client.base_url))} is not a komas server: it does not tell its streams"
        ) from None
    return tuple(dict.fromkeys(row.symbol for row in rows))


async def read_market(server: str, request: MarketRequest, put: Put) -> None:
    """Put each record, until cancelled; comes back by itself, with the last id, when the server was away.

    Raises ``CallerError`` with the server's words when it refuses what was asked.
    """
    link = Link(server, put)
    last_id = ""
    async with open_client(server, read_timeout_s=READ_TIMEOUT_S) as client:
        while True:
            reason = "the server ended the stream"
            try:
                async with aclosing(_events(client, request, last_id, link)) as events:
                    async for event in events:
                        last_id = _id_of(event) or last_id
                        if event.retry is not None:
                            link.retries.asked(event.retry / 1000)
                        if event.event == BUSY:
                            reason = _why_busy(event)
                        else:
                            _put(event, link, put)
            except httpx.HTTPError as error:
                reason = failure_words(error)
            await link.lost(reason)


async def _events(
    client: httpx.AsyncClient, request: MarketRequest, last_id: str, link: Link
) -> AsyncGenerator[ServerSentEvent, None]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with aconnect_sse(client, "GET", request.path, params=request.query, headers=headers) as source:
        await _check(client, source)
        link.connected()
        async with aclosing(source.aiter_sse()) as events:
            async for event in events:
                yield event


async def _check(client: httpx.AsyncClient, source: EventSource) -> None:
    response = source.response
    if response.is_server_error or response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise httpx.HTTPStatusError(f"HTTP {response.status_code}", request=response.request, response=response)
    if response.status_code != httpx.codes.OK:
        raise await refusal(client, response)
    if not response.headers.get("content-type", "").startswith(_SSE):
        raise CallerError(f"{shown_address(str(client.base_url))} is not a komas server: it sends no events")


def _id_of(event: ServerSentEvent) -> str:
    """What the server will understand when the watcher comes back; no more than a header may hold."""
    is_plain = event.id.isascii() and event.id.isprintable() and len(event.id) <= _ID_LENGTH
    return event.id if is_plain else ""


def _why_busy(event: ServerSentEvent) -> str:
    record = notice_record(BUSY, event.data, wall_ms())
    return words(record.fields.get("reason")) if record is not None else BUSY


def _put(event: ServerSentEvent, link: Link, put: Put) -> None:
    if not event.data:
        return  # httpx-sse hands out a lone "retry:" as an event without data
    record = market_record(event.data) if event.event == _MESSAGE else notice_record(event.event, event.data, wall_ms())
    link.retries.succeeded()
    if record is not None:
        put(record)
