"""UNICORN's local depth cache, which keeps floats in a thread, and its WebSocket manager for trades."""

import sys
import threading
import time

from unicorn_binance_local_depth_cache import BinanceLocalDepthCacheManager, DepthCacheOutOfSync
from unicorn_binance_rest_api import BinanceRestApiManager
from unicorn_binance_websocket_api import BinanceWebSocketApiManager

from tests.conformance.clients.lines import show

STILL_S = 0.02  # a book that has the same id this long before and after is not in the middle of an update


def books(caches: BinanceLocalDepthCacheManager, symbol: str) -> None:
    """Print the book after each update, unless another one comes just then."""
    known = caches.depth_caches[symbol.lower()]
    shown = None
    while True:
        update_id = known["last_update_id"]
        time.sleep(STILL_S)
        if update_id == shown:
            continue
        try:
            bids, asks = caches.get_bids(market=symbol), caches.get_asks(market=symbol)
        except DepthCacheOutOfSync:
            continue
        time.sleep(STILL_S)
        if update_id == known["last_update_id"]:
            show("book", symbol, update_id, bids, asks)
            shown = update_id


def main(ws_url: str, rest_url: str, *symbols: str) -> None:
    """Read the symbols until somebody ends it."""
    BinanceRestApiManager.API_URL = f"{rest_url}/api"  # before it is made: it asks for the time at once
    rest = BinanceRestApiManager(tld="com", warn_on_update=False, disable_colorama=True)
    caches = BinanceLocalDepthCacheManager(
        exchange="binance.com",
        ubra_manager=rest,
        depth_cache_update_interval=100,
        init_interval=0.2,
        warn_on_update=False,
        disable_colorama=True,
    )
    streams = BinanceWebSocketApiManager(
        exchange="binance.com",
        websocket_base_uri=f"{ws_url}/",
        restful_base_uri=f"{rest_url}/",
        output_default="dict",
        warn_on_update=False,
        disable_colorama=True,
    )
    caches.get_ubwa_manager().websocket_base_uri = f"{ws_url}/"
    caches.get_ubwa_manager().restful_base_uri = f"{rest_url}/"
    caches.create_depthcache(markets=list(symbols))
    for symbol in symbols:
        threading.Thread(target=books, args=(caches, symbol), daemon=True).start()
    streams.create_stream(["trade"], [symbol.lower() for symbol in symbols])
    while True:
        found = streams.pop_stream_data_from_stream_buffer()
        if not found:
            time.sleep(0.01)
        elif "data" in found:
            told = found["data"]
            show("trade", told["s"], *(told[key] for key in "tpqTm"))


main(*sys.argv[1:])
