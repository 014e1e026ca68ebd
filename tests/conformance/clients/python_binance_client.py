"""python-binance: its depth cache, with decimals, and its trade socket. Both connect again by themselves."""

import asyncio
import sys
from decimal import Decimal

from binance import AsyncClient, BinanceSocketManager
from binance.ws.depthcache import DepthCache, DepthCacheManager

from tests.conformance.clients.lines import remark, show


async def books(client: AsyncClient, sockets: BinanceSocketManager, symbol: str) -> None:
    """Print the book after each update."""
    manager = DepthCacheManager(client, symbol, bm=sockets, limit=1000, conv_type=Decimal, ws_interval=100)
    async with manager:
        while True:
            book = await manager.recv()
            if not isinstance(book, DepthCache):
                remark(book)
                continue
            bids, asks = ([[str(x) for x in level] for level in side] for side in (book.get_bids(), book.get_asks()))
            update_id = manager._last_update_id  # noqa: SLF001  # a book of its own tells no id
            show("book", symbol, update_id, bids, asks)


async def trades(sockets: BinanceSocketManager, symbol: str) -> None:
    """Print each trade."""
    async with sockets.trade_socket(symbol) as socket:
        while True:
            told = await socket.recv()
            if told["e"] == "trade":
                show("trade", symbol, *(told[key] for key in "tpqTm"))
            else:
                remark(told)


async def main(ws_url: str, rest_url: str, *symbols: str) -> None:
    """Read the symbols until somebody ends it."""
    client = AsyncClient()
    client.API_URL = f"{rest_url}/api"
    sockets = BinanceSocketManager(client)
    sockets.STREAM_URL = f"{ws_url}/"
    reads = [read for symbol in symbols for read in (books(client, sockets, symbol), trades(sockets, symbol))]
    await asyncio.gather(*reads)


asyncio.run(main(*sys.argv[1:]))
