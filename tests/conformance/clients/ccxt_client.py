"""ccxt.pro, as its manual shows it: a call for each update, and another one after an error. It keeps floats."""

import asyncio
import sys

import ccxt.pro

from tests.conformance.clients.lines import remark, show


async def books(exchange: ccxt.pro.binance, symbol: str) -> None:
    """Print the book after each update."""
    while True:
        try:
            book = await exchange.watch_order_book(symbol)
        except ccxt.BaseError as error:
            remark(repr(error))
            await asyncio.sleep(0.1)
            continue
        name = exchange.market_id(symbol)
        show("book", name, book["nonce"], list(book["bids"]), list(book["asks"]))


async def trades(exchange: ccxt.pro.binance, symbol: str) -> None:
    """Print each trade."""
    while True:
        try:
            found = await exchange.watch_trades(symbol)
        except ccxt.BaseError as error:
            remark(repr(error))
            await asyncio.sleep(0.1)
            continue
        for each in found:
            row = [int(each["id"]), each["price"], each["amount"], each["timestamp"], each["side"] == "sell"]
            show("trade", exchange.market_id(symbol), *row)


async def main(ws_url: str, rest_url: str, *symbols: str) -> None:
    """Read the symbols until somebody ends it."""
    exchange = ccxt.pro.binance({"options": {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False}})
    exchange.urls["api"]["ws"]["spot"] = f"{ws_url}/ws"
    exchange.urls["api"]["public"] = f"{rest_url}/api/v3"
    await exchange.load_markets()
    names = [exchange.markets_by_id[symbol][0]["symbol"] for symbol in symbols]
    await asyncio.gather(*(watch(exchange, name) for name in names for watch in (books, trades)))


asyncio.run(main(*sys.argv[1:]))
