"""Binance's own SDK for spot: raw diffs and trades, and a book of ours. It tells of a connection's end, and no more."""

import asyncio
import sys
from functools import partial
from typing import Any

from binance_common.configuration import ConfigurationRestAPI, ConfigurationWebSocketStreams
from binance_sdk_spot.spot import Spot

from tests.conformance.clients.lines import remark, show
from tests.conformance.clients.own_book import OwnBook


async def main(ws_url: str, rest_url: str, *symbols: str) -> None:
    """Read the symbols until somebody ends it, over one connection after another."""
    books = {symbol: OwnBook(partial(_snapshot, rest_url, symbol)) for symbol in symbols}
    while True:
        try:
            await _read(ws_url, books)
        except Exception as failure:  # noqa: BLE001  # of any kind, while the exchange is away
            remark(repr(failure))
        await asyncio.sleep(0.5)


async def _read(ws_url: str, books: dict[str, OwnBook]) -> None:
    """Read one connection to its end."""
    client = Spot(config_ws_streams=ConfigurationWebSocketStreams(stream_url=f"{ws_url}/stream"))
    connection = await client.websocket_streams.create_connection()
    ended = asyncio.Event()
    connection.on_connection("close", ended.set)

    def changed(told: Any) -> None:
        book = books[told.s]
        if book.take(told.U, told.u, told.b, told.a):
            show("book", told.s, book.update_id, *book.levels)

    def traded(told: Any) -> None:
        show("trade", told.s, told.t, told.p, told.q, told.T, told.m)

    for symbol in books:
        (await connection.diff_book_depth(symbol=symbol, update_speed="100ms")).on("message", changed)
        (await connection.trade(symbol=symbol)).on("message", traded)
    await ended.wait()


def _snapshot(rest_url: str, symbol: str) -> dict[str, Any]:
    rest = Spot(config_rest_api=ConfigurationRestAPI(base_path=rest_url)).rest_api
    found = rest.depth(symbol=symbol, limit=1000).data()
    return {"lastUpdateId": found.last_update_id, "bids": found.bids, "asks": found.asks}


asyncio.run(main(*sys.argv[1:]))
