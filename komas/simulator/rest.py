"""The REST answers, from the same state that the streams speak of. Bounds are inclusive, rows ascend in time."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import NamedTuple

from komas.simulator import exchange_info, payloads
from komas.simulator.candles import DAY_MS, HOUR_MS, MINUTE_MS, WIDTH_MS, Bar, ending
from komas.simulator.fixed_point import written
from komas.simulator.http_connection import Answer
from komas.simulator.market import AVERAGE_MS
from komas.simulator.payloads import Window
from komas.simulator.request_params import (
    MOST_ROWS,
    Call,
    Mistaken,
    Parameters,
    asked_pairs,
    known_pair,
    limit,
    number,
    one_pair,
    page,
    times,
)
from komas.simulator.symbol_state import Pair

PREFIX = "/api/v3/"
FUTURES_PREFIX = "/fapi/v1/"  # of USD-M futures the double has mark prices, and what clients ask before them
DEPTH_ROWS, MOST_DEPTH_ROWS = 100, 5000
MOST_MS = 1 << 60
SOME_SYMBOLS, MANY_SYMBOLS = 20, 100
DEPTH_WEIGHTS = ((100, 5), (500, 25), (1000, 50), (5000, 250))


def failure(status: int, code: int, message: str, retry_after_s: int | None = None) -> Answer:
    """An error in the exchange's shape."""
    body = json.dumps({"code": code, "msg": message}).encode()
    return Answer(status, body, () if retry_after_s is None else (("retry-after", str(retry_after_s)),))


def refusal(status: int, message: str) -> tuple[int, str]:
    """The exchange's code and words for an HTTP status."""
    code, words = REFUSALS.get(status, (-1000, "An unknown error occurred while processing the request."))
    return code, message or words


REFUSALS = {
    403: (0, "Forbidden"),
    418: (-1003, "Way too much request weight used; IP banned. Please use WebSocket Streams for live updates."),
    429: (-1003, "Too many requests; please use WebSocket Streams for live updates to avoid bans."),
    451: (0, "Service unavailable from a restricted location according to 'b. Eligibility' in the terms."),
    503: (-1008, "Server is currently overloaded with other requests. Please try again in a few minutes."),
}


def answered(path: str, call: Call) -> Answer:
    """The answer to ``GET path``."""
    endpoint = _endpoint(path)
    if endpoint is None:
        return failure(HTTPStatus.NOT_FOUND, 0, f"{path} is not here")
    try:
        return Answer(HTTPStatus.OK, endpoint.answer(call).encode())
    except Mistaken as mistake:
        return failure(mistake.status, mistake.code, mistake.message)


def weight(path: str, parameters: Parameters) -> int:
    """What the call costs of the minute's budget."""
    endpoint = _endpoint(path)
    return endpoint.weight(parameters) if endpoint else 1


def _endpoint(path: str) -> Endpoint | None:
    if path.startswith(FUTURES_PREFIX):
        return FUTURES_ENDPOINTS.get(path.removeprefix(FUTURES_PREFIX))
    return ENDPOINTS.get(path.removeprefix(PREFIX))


def _ping(_: Call) -> str:
    return "{}"


def _time(call: Call) -> str:
    return f'{{"serverTime":{call.now_ms}}}'


def _klines(call: Call) -> str:
    pair = one_pair(call)
    interval = call.parameters.get("interval")
    if not interval:
        raise Mistaken(-1102, "Mandatory parameter 'interval' was not sent, was empty/null, or malformed.")
    if interval not in WIDTH_MS:
        raise Mistaken(-1120, "Invalid interval.")
    offset_ms = _offset(call.parameters.get("timeZone", "0"))
    start, end = times(call)
    until = min(MOST_MS if end is None else end, call.now_ms - call.lag_ms)
    if (start or 0) > until:
        return "[]"
    rows = page(pair.candles(interval, start or 0, until, offset_ms), limit(call), oldest=start is not None)
    return _list(payloads.rest_kline(bar, ending(interval, bar.open_ms, offset_ms)) for bar in rows)


def _offset(zone: str) -> int:
    hours, _, minutes = zone.removeprefix("+").partition(":")
    try:
        sign = -1 if hours.startswith("-") else 1
        shift = (int(hours) * 60 + sign * int(minutes or 0)) * MINUTE_MS
    except ValueError:
        shift = DAY_MS
    if not -DAY_MS // 2 <= shift <= 14 * 60 * MINUTE_MS:
        raise Mistaken(-1130, "Data sent for parameter 'timeZone' is not valid.")
    return shift


def _list(rows: Iterable[str]) -> str:
    return f"[{','.join(rows)}]"


def _agg_trades(call: Call) -> str:
    pair = one_pair(call)
    start, end = times(call)
    first = number(call, "fromId", -1)
    if first >= 0 and (start is not None or end is not None):
        raise Mistaken(-1128, "Combination of optional parameters invalid. Recommendation: 'fromId' or times")
    known = pair.aggregates
    visible = bisect_left(known, call.now_ms - call.lag_ms + 1, key=_aggregate_time) if call.lag_ms else len(known)
    if first >= 0:
        begin = bisect_left(known, first, key=_aggregate_id)
        rows = known[begin:visible][: limit(call)]
    else:
        begin = bisect_left(known, start or 0, key=_aggregate_time)
        until = visible if end is None else min(visible, bisect_left(known, end + 1, key=_aggregate_time))
        rows = list(page(known[begin:until], limit(call), oldest=start is not None))
    return _list(payloads.rest_agg_trade(row) for row in rows)


def _aggregate_time(row: payloads.Aggregate) -> int:
    return row.time_ms


def _aggregate_id(row: payloads.Aggregate) -> int:
    return row.id


def _trades(call: Call) -> str:
    return _list(payloads.rest_trade(row) for row in one_pair(call).trades[-limit(call) :])


def _historical_trades(call: Call) -> str:
    pair, most = one_pair(call), limit(call)
    first = number(call, "fromId", -1)
    if first < 0 or not pair.trades:
        return _trades(call)
    begin = max(0, first - pair.trades[0].id)
    return _list(payloads.rest_trade(row) for row in pair.trades[begin : begin + most])


def _shown(call: Call, row: Callable[[Pair], str]) -> str:
    pairs, single = asked_pairs(call)
    rows = [row(pair) for pair in pairs]
    return rows[0] if single else _list(rows)


def _is_full(call: Call) -> bool:
    kind = call.parameters.get("type", "FULL")
    if kind not in {"FULL", "MINI"}:
        raise Mistaken(-1130, "Data sent for parameter 'type' is not valid.")
    return kind == "FULL"


def _day(call: Call) -> str:
    is_full, now_ms = _is_full(call), call.market.now_ms

    def row(pair: Pair) -> str:
        window = pair.window(DAY_MS, now_ms)
        best = {"prevClosePrice": written(window.before), "lastPrice": written(window.bar.close), **_best(pair)}
        return _ticker(pair, window, best if is_full else {}, is_full=is_full)

    return _shown(call, row)


def _rolling(call: Call) -> str:
    """A window of whole minutes; a symbol must be named."""
    width_ms, is_full = _window_ms(call.parameters.get("windowSize", "1d")), _is_full(call)
    _some_pair(call)
    return _shown(call, lambda pair: _ticker(pair, pair.window(width_ms, call.market.now_ms), {}, is_full=is_full))


def _window_ms(text: str) -> int:
    count, unit = text[:-1], text[-1:]
    width_ms, most = WINDOWS_MS.get(unit, (0, 0))
    if len(count) > len("59") or not count.isascii() or not count.isdigit() or not 1 <= int(count) <= most:
        raise Mistaken(-1130, "Data sent for parameter 'windowSize' is not valid.")
    return int(count) * width_ms


WINDOWS_MS = {"m": (MINUTE_MS, 59), "h": (HOUR_MS, 23), "d": (DAY_MS, 7)}


def _trading_day(call: Call) -> str:
    """The day that is now in a zone, to its end; a symbol must be named."""
    offset_ms, is_full = _offset(call.parameters.get("timeZone", "0")), _is_full(call)
    _some_pair(call)
    now_ms = call.market.now_ms

    def row(pair: Pair) -> str:
        bar = pair.current("1d", now_ms, offset_ms)
        end_ms = ending("1d", bar.open_ms, offset_ms)
        return _ticker(pair, Window(bar, bar.open, bar.open_ms, end_ms - 1), {}, is_full=is_full)

    return _shown(call, row)


def _some_pair(call: Call) -> None:
    if not call.parameters.get("symbol") and not call.parameters.get("symbols"):
        raise Mistaken(-1128, "Combination of optional parameters invalid. Recommendation: 'symbol' or 'symbols'")


def _ticker(pair: Pair, window: Window, more: dict[str, str], *, is_full: bool) -> str:
    bar = window.bar
    change = {
        "priceChange": written(bar.close - bar.open),
        "priceChangePercent": payloads.percent(bar),
        "weightedAvgPrice": written(payloads.mean(bar)),
    }
    row = {
        "symbol": pair.symbol,
        **(change if is_full else {}),
        **more,
        "openPrice": written(bar.open),
        "highPrice": written(bar.high),
        "lowPrice": written(bar.low),
        "lastPrice": written(bar.close),
        "volume": written(bar.volume),
        "quoteVolume": written(bar.quote),
        "openTime": window.open_ms,
        "closeTime": window.close_ms,
        "firstId": bar.first,
        "lastId": bar.last,
        "count": bar.count,
    }
    return json.dumps(row, ensure_ascii=False)


def _best(pair: Pair) -> dict[str, str]:
    top = pair.top
    return {
        "lastQty": written(pair.trades[-1].quantity if pair.trades else 0),
        "bidPrice": written(top.bid),
        "bidQty": written(top.bid_quantity),
        "askPrice": written(top.ask),
        "askQty": written(top.ask_quantity),
    }


def _futures_day(call: Call) -> str:
    """USD-M futures' row: what spot's has, without the book and the close before; one symbol or all, never some."""
    named = call.parameters.get("symbol")
    pairs = [known_pair(call, named)] if named else call.market.pairs.values()
    rows = [_futures_row(pair, pair.window(DAY_MS, call.market.now_ms)) for pair in pairs]
    return rows[0] if named else _list(rows)


def _futures_row(pair: Pair, window: Window) -> str:
    last = {"lastPrice": written(window.bar.close), "lastQty": _best(pair)["lastQty"]}
    return _ticker(pair, window, last, is_full=True)


def _price(call: Call) -> str:
    return _shown(call, lambda pair: f'{{"symbol":"{pair.symbol}","price":"{written(pair.last_price)}"}}')


def _book_ticker(call: Call) -> str:
    def row(pair: Pair) -> str:
        best = _best(pair)
        del best["lastQty"]
        return json.dumps({"symbol": pair.symbol, **best}, ensure_ascii=False)

    return _shown(call, row)


def _depth(call: Call) -> str:
    pair = one_pair(call)
    if not pair.has_book:
        raise Mistaken(-1008, f"The capture has no snapshot of {pair.symbol}.", HTTPStatus.SERVICE_UNAVAILABLE)
    bids, asks = pair.book.best(limit(call, DEPTH_ROWS, MOST_DEPTH_ROWS))
    return payloads.partial_depth(pair.book.update_id, bids, asks).decode()


def _average(call: Call) -> str:
    pair = one_pair(call)
    bar: Bar = pair.window(AVERAGE_MS, call.market.now_ms).bar
    last_ms = pair.trades[-1].time_ms if pair.trades else 0
    return f'{{"mins":5,"price":"{written(payloads.mean(bar))}","closeTime":{last_ms}}}'


def _execution_rules(call: Call) -> str:
    """No order may be 15 % off the reference price; a double without orders lets nobody try."""
    status = call.parameters.get("symbolStatus")
    pairs, _ = asked_pairs(call)
    limits = {
        f"{side}LimitMult{end}": mult for side in ("bid", "ask") for end, mult in (("Up", "1.15"), ("Down", "0.85"))
    }
    rules = [{"ruleType": "PRICE_RANGE", **limits}]
    rows = [{"symbol": pair.symbol, "rules": rules} for pair in pairs if status in (None, pair.status)]
    return json.dumps({"symbolRules": rows}, ensure_ascii=False)


def _reference_price(call: Call) -> str:
    pair = one_pair(call)
    if not pair.trades:
        raise Mistaken(-2043, "This symbol doesn't have a reference price.")
    price, at_ms = written(pair.last_price), call.market.now_ms
    return f'{{"symbol":"{pair.symbol}","referencePrice":"{price}","timestamp":{at_ms}}}'


def _premium_index(call: Call) -> str:
    """The same mark, index and funding as the stream of mark prices."""

    def row(pair: Pair) -> str:
        at_ms = call.market.now_ms
        told = json.loads(payloads.mark_price(pair.symbol, pair.mark_price, pair.last_price, at_ms))
        names = {"s": "symbol", "p": "markPrice", "i": "indexPrice", "P": "estimatedSettlePrice",
                 "r": "lastFundingRate", "T": "nextFundingTime", "E": "time"}  # fmt: skip
        found = {name: told[key] for key, name in names.items()}
        return json.dumps(found | {"interestRate": "0.00010000"}, ensure_ascii=False)

    return _shown(call, row)


def _flat(cost: int) -> Callable[[Parameters], int]:
    return lambda _: cost


def _one_or_many(one: int, many: int) -> Callable[[Parameters], int]:
    return lambda parameters: one if "symbol" in parameters else many


def _depth_weight(parameters: Parameters) -> int:
    text = parameters.get("limit", "")
    limit = int(text) if text.isascii() and text.isdigit() else DEPTH_ROWS
    return next((cost for most, cost in DEPTH_WEIGHTS if limit <= most), DEPTH_WEIGHTS[-1][1])


def _day_weight(parameters: Parameters) -> int:
    if "symbol" in parameters:
        return 2
    count = parameters["symbols"].count('"') // 2 if "symbols" in parameters else MOST_ROWS
    return 2 if count <= SOME_SYMBOLS else 40 if count <= MANY_SYMBOLS else 80


def _each(cost: int, most: int, everything: int) -> Callable[[Parameters], int]:
    """So much for each symbol that is named."""

    def weigh(parameters: Parameters) -> int:
        if "symbol" in parameters:
            return cost
        return min(most, cost * (parameters["symbols"].count('"') // 2)) if "symbols" in parameters else everything

    return weigh


class Endpoint(NamedTuple):
    """How a call is answered, and what it weighs."""

    answer: Callable[[Call], str]
    weight: Callable[[Parameters], int]


ENDPOINTS = {
    "ping": Endpoint(_ping, _flat(1)),
    "time": Endpoint(_time, _flat(1)),
    "exchangeInfo": Endpoint(exchange_info.spot, _flat(20)),
    "klines": Endpoint(_klines, _flat(2)),
    "uiKlines": Endpoint(_klines, _flat(2)),
    "aggTrades": Endpoint(_agg_trades, _flat(4)),
    "trades": Endpoint(_trades, _flat(25)),
    "historicalTrades": Endpoint(_historical_trades, _flat(25)),
    "ticker/24hr": Endpoint(_day, _day_weight),
    "ticker": Endpoint(_rolling, _each(4, 200, 4)),
    "ticker/tradingDay": Endpoint(_trading_day, _each(4, 200, 4)),
    "ticker/price": Endpoint(_price, _one_or_many(2, 4)),
    "ticker/bookTicker": Endpoint(_book_ticker, _one_or_many(2, 4)),
    "depth": Endpoint(_depth, _depth_weight),
    "avgPrice": Endpoint(_average, _flat(2)),
    "executionRules": Endpoint(_execution_rules, _each(2, 40, 40)),
    "referencePrice": Endpoint(_reference_price, _flat(2)),
}
FUTURES_ENDPOINTS = {
    "ping": Endpoint(_ping, _flat(1)),
    "time": Endpoint(_time, _flat(1)),
    "exchangeInfo": Endpoint(exchange_info.futures, _flat(1)),
    "premiumIndex": Endpoint(_premium_index, _one_or_many(1, 10)),
    "ticker/24hr": Endpoint(_futures_day, _one_or_many(1, 40)),
}
