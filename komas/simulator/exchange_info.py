"""REST ``exchangeInfo``: what is traded, on which grid, of spot and of USD-M futures."""

from __future__ import annotations

import json

from komas.simulator.fixed_point import decimals, written
from komas.simulator.request_params import Call, asked_pairs
from komas.simulator.symbol_state import Pair
from komas.simulator.tape import spec_for

ONBOARD_MS, NEVER_MS = 1_569_398_400_000, 4_133_404_800_000  # 2019-09-25 and 2100-12-25, as the first contract has it


def spot(call: Call) -> str:
    """The symbols that are asked for, and spot's limits."""
    pairs, _ = asked_pairs(call)
    status = call.parameters.get("symbolStatus")
    head = (
        f'{{"timezone":"UTC","serverTime":{call.now_ms},"rateLimits":{json.dumps(RATE_LIMITS)},"exchangeFilters":[],'
        '"symbols":['
    )
    rows = [json.dumps(_symbol(pair), ensure_ascii=False) for pair in pairs if status in (None, pair.status)]
    return head + ",".join(rows) + "]}"


RATE_LIMITS = [
    {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
    {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
    {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 300_000},
]


def _symbol(pair: Pair) -> dict[str, object]:
    spec = spec_for(pair.symbol)
    return {
        "symbol": pair.symbol,
        "status": pair.status,
        "baseAsset": spec.base,
        "baseAssetPrecision": 8,
        "quoteAsset": spec.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            _filter("PRICE_FILTER", minPrice=spec.tick, maxPrice=spec.tick * 10**8, tickSize=spec.tick),
            _filter("LOT_SIZE", minQty=spec.step, maxQty=spec.step * 10**9, stepSize=spec.step),
            {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True, "avgPriceMins": 5},
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
    }


def futures(call: Call) -> str:
    """USD-M futures: every symbol, whatever is asked for, each a perpetual contract that is settled in its quote."""
    pairs = call.market.pairs.values()
    quotes = dict.fromkeys(spec_for(pair.symbol).quote for pair in pairs)
    told = {
        "timezone": "UTC",
        "serverTime": call.now_ms,
        "futuresType": "U_MARGINED",
        "rateLimits": FUTURES_RATE_LIMITS,
        "exchangeFilters": [],
        "assets": [{"asset": quote, "marginAvailable": True, "autoAssetExchange": "-10000"} for quote in quotes],
        "symbols": [_contract(pair) for pair in pairs],
    }
    return json.dumps(told, ensure_ascii=False)


FUTURES_RATE_LIMITS = [
    {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2400},
    {"rateLimitType": "ORDERS", "interval": "MINUTE", "intervalNum": 1, "limit": 1200},
]


def _contract(pair: Pair) -> dict[str, object]:
    spec = spec_for(pair.symbol)
    quantities = {"minQty": spec.step, "maxQty": spec.step * 10**9, "stepSize": spec.step}
    return {
        "symbol": pair.symbol,
        "pair": pair.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": NEVER_MS,
        "onboardDate": ONBOARD_MS,
        "status": pair.status,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": spec.base,
        "quoteAsset": spec.quote,
        "marginAsset": spec.quote,
        "pricePrecision": decimals(spec.tick),
        "quantityPrecision": decimals(spec.step),
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "filters": [
            _filter("PRICE_FILTER", minPrice=spec.tick, maxPrice=spec.tick * 10**8, tickSize=spec.tick),
            _filter("LOT_SIZE", **quantities),
            _filter("MARKET_LOT_SIZE", **quantities),
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
        ],
        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
    }


def _filter(kind: str, **amounts: int) -> dict[str, object]:
    return {"filterType": kind, **{name: written(value) for name, value in amounts.items()}}
