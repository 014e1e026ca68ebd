"""ccxt.pro for USD-M futures: mark prices, the exchange's only stream of futures that the simulator has. Floats."""

import asyncio
import sys

import ccxt.pro

from tests.conformance.clients.lines import remark, show


async def marks(exchange: ccxt.pro.binanceusdm, symbol: str) -> None:
    """Print each mark price with its index."""
    while True:
        try:
            found = await exchange.watch_mark_price(symbol)
        except ccxt.BaseError as error:
            remark(repr(error))
            await asyncio.sleep(0.1)
            continue
        show("mark", exchange.market_id(symbol), found["markPrice"], found["indexPrice"])


async def main(ws_url: str, rest_url: str, *symbols: str) -> None:
    """Read the symbols until somebody ends it."""
    exchange = ccxt.pro.binanceusdm({"options": {"fetchMargins": False}})
    exchange.urls["api"]["ws"]["linear"] = f"{ws_url}/ws"
    exchange.urls["api"]["fapiPublic"] = f"{rest_url}/fapi/v1"
    await exchange.load_markets()
    await asyncio.gather(*(marks(exchange, exchange.markets_by_id[symbol][0]["symbol"]) for symbol in symbols))


asyncio.run(main(*sys.argv[1:]))
