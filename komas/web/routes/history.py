"""REST: what happened before now (candles, trades), and which symbols there are; contract section 2."""

from __future__ import annotations

from typing import Final

import msgspec
from quart import Blueprint, Response, request

from komas.model.market import Event
from komas.model.symbols import SymbolInfo
from komas.web import params
from komas.web.markets import Market
from komas.web.problems import FieldError, invalid
from komas.web.routes.control import address_of, check_listed, json_response
from komas.web.services import Services

CANDLES: Final = 500
TRADES: Final = 200
SYMBOLS: Final = 50
QUERY_LENGTH: Final = 40


class CandlesBody(msgspec.Struct, frozen=True):
    """``GET /api/ws/klines``; oldest first, the last one may be open."""

    symbol: str
    interval: str
    count: int
    candles: tuple[Event, ...]


class TradesBody(msgspec.Struct, frozen=True):
    """``GET /api/ws/trades``; oldest first."""

    symbol: str
    count: int
    trades: tuple[Event, ...]


class SymbolsBody(msgspec.Struct, frozen=True):
    """``GET /api/ws/symbols``; best match first."""

    count: int
    symbols: tuple[SymbolInfo, ...]


def history(services: Services) -> Blueprint:
    """The routes."""
    routes = Blueprint("history", __name__, url_prefix="/api/ws")

    @routes.get("/klines")
    async def klines() -> Response:
        end = request.args.get("end")
        stream, limit, end_ms = params.together(
            lambda: params.read_kline_stream(request.args),
            lambda: _limit(CANDLES),
            lambda: None if end is None else params.read_count(end, "end", default=0, least=0, most=params.LARGEST),
        )
        await check_listed(services, [stream], "symbol")
        found = await services.markets.of(stream).past.latest(stream, limit, end_ms=end_ms, reader=address_of(services))
        assert stream.interval is not None  # every candle stream has one
        return json_response(CandlesBody(stream.symbol, stream.interval, len(found), found))

    @routes.get("/trades")
    async def trades() -> Response:
        stream, limit = params.together(lambda: params.read_trade_stream(request.args), lambda: _limit(TRADES))
        await check_listed(services, [stream], "symbol")
        found = await services.markets.of(stream).past.latest(stream, limit, reader=address_of(services))
        return json_response(TradesBody(stream.symbol, len(found), found))

    @routes.get("/symbols")
    async def symbols() -> Response:
        query, limit, market = params.together(
            _query, lambda: _limit(SYMBOLS), lambda: _market(services, request.args.get("market"))
        )
        found = await market.symbol_search.find(query, limit)
        return json_response(SymbolsBody(len(found), tuple(found)))

    return routes


def _limit(default: int) -> int:
    return params.read_count(request.args.get("limit"), "limit", default=default, most=params.MOST_PAST)


def _query() -> str:
    query = request.args.get("query", "").strip()
    if len(query) > QUERY_LENGTH:
        raise invalid([FieldError("query", f"query is longer than {QUERY_LENGTH} letters")])
    return query


def _market(services: Services, code: str | None) -> Market:
    if code is None:
        return services.markets.primary
    codes = {market.code: market for market in services.markets}
    if code not in codes:
        raise invalid([FieldError("market", f"market is one of: {' '.join(codes)}")])
    return codes[code]
