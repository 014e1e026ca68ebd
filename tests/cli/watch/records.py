"""Records as a server's messages make them."""

from __future__ import annotations

import json

from komas.cli.watch.records import Record, market_record, notice_record, own_record, signal_record

NOW_MS = 1_796_000_000_000


def ticker(symbol: str = "BTCUSDT", price: str = "61837.60000000", change: str = "12.30") -> Record:
    """A ticker, with the digits as they are written."""
    data = (
        f'{{"type":"ticker","symbol":{json.dumps(symbol)},"price":{price},"open":1.50,"high":2.0,"low":1.0,'
        f'"volume":10.500,"quote_volume":3.0,"price_change":{change},"price_change_percent":1.340,"timestamp":{NOW_MS}}}'
    )
    return market_record(f'{{"type":"ticker","data":{data},"timestamp":"2026-11-30T09:00:00.000Z"}}')


def trade(number: int, price: str = "61837.60000000", quantity: str = "0.01000000", *, is_sale: bool = False) -> Record:
    """A trade."""
    data = (
        f'{{"type":"trade","symbol":"BTCUSDT","trade_id":{number},"price":{price},"quantity":{quantity},'
        f'"timestamp":{NOW_MS},"is_buyer_maker":{json.dumps(is_sale)}}}'
    )
    return market_record(f'{{"type":"trade","data":{data},"timestamp":"2026-11-30T09:00:00.000Z","backfilled":true}}')


def kline(minute: int, close: str = "2.50", *, is_closed: bool = True, interval: str = "1m") -> Record:
    """A candle that opened at 2."""
    data = (
        f'{{"type":"kline","symbol":"BTCUSDT","interval":"{interval}","timestamp":{NOW_MS + 60_000 * minute},'
        f'"open":2.0,"high":3.0,"low":1.0,"close":{close},"volume":4.0,"is_closed":{json.dumps(is_closed)},"trades":7,'
        f'"quote_volume":9.10}}'
    )
    return market_record(f'{{"type":"kline","data":{data},"timestamp":"2026-11-30T09:00:00.000Z"}}')


def depth(bids: str, asks: str) -> Record:
    """An order book."""
    data = f'{{"type":"depth","symbol":"BTCUSDT","update_id":9,"bids":{bids},"asks":{asks},"timestamp":{NOW_MS}}}'
    return market_record(f'{{"type":"depth","data":{data},"timestamp":"2026-11-30T09:00:00.000Z"}}')


def notice(name: str, **fields: object) -> Record:
    """A notice of a market."""
    record = notice_record(name, json.dumps(fields), NOW_MS)
    assert record is not None
    return record


def connection(state: str, **fields: object) -> Record:
    """The watcher's own connection."""
    return own_record("connection", {"server": "http://komas", "state": state, **fields}, NOW_MS)


def signal(number: int, **data: object) -> Record:
    """A new signal."""
    inner = {"id": number, "created_at": "2026-11-30T00:53:10.000Z", **data}
    message = {"type": "new_signal", "signal_type": "mexc_dex", "data": inner, "position": number}
    return signal_record(json.dumps(message).encode(), NOW_MS)


def signal_update(number: int, changes: str) -> Record:
    """What has changed in one, as JSON."""
    text = f'{{"type":"signal_update","signal_type":"mexc_dex","signal_id":{number},"data":{changes},"position":9}}'
    return signal_record(text.encode(), NOW_MS)
