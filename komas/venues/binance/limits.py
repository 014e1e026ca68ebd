"""What Binance spot says of itself: numbers and names with their sources, and nothing else."""

from __future__ import annotations

from typing import Final

import msgspec

from komas.model.kinds import Venue


class MarketSpec(msgspec.Struct, frozen=True):
    """One of Binance's markets: where its streams and its symbols are.

    ``name`` is for people, ``code`` for programs. ``silence_s`` is how long nothing at all may come, not even a ping.
    """

    venue: Venue
    name: str
    code: str
    stream_path: str
    exchange_info_path: str
    volumes_path: str
    weight_per_minute: int
    silence_s: float


STREAM_PATH: Final = "/stream"  # always combined: a spot bookTicker cannot be attributed without its stream's name

# binance-spot-api-docs, web-socket-streams.md, 2026-07-21: more than 5 incoming messages (pings, pongs and requests
# all count) in a second close the connection with 1008. We send at most 4 in a little more than a second, requests
# 275 ms apart, so that a pong always has room and a jittering network cannot squeeze five of ours into one second.
MESSAGES: Final = 4
MESSAGES_PERIOD_S: Final = 1.05
REQUEST_SPACING_S: Final = 0.275
# A network that stood still brings in one moment what was sent in seconds: these, and a pong, are within the limit.
REQUESTS_UNANSWERED: Final = 3

STREAMS_PER_CONNECTION: Final = 1024  # same page; number 1025 is answered with this code, and a close
TOO_MANY_SUBSCRIPTIONS: Final = 4

# One SUBSCRIBE over about 8 KB is dropped without a word (ccxws#161); 200 names passed on futures in 2026-10.
NAMES_PER_REQUEST: Final = 200
BYTES_PER_REQUEST: Final = 8_000
# A URL of about 8,000 characters was the measured ceiling (unicorn-binance-websocket-api#17); half of it is safe
# through any proxy on the way.
BYTES_PER_URL: Final = 4_000

PING_EVERY_S: Final = (
    20.0  # since 2025-02 (CHANGELOG, 2025-01-28); some deployments still ping each 180 s (go-binance#693)
)
TOTAL_SILENCE_S: Final = 200.0  # so nothing at all, not even a ping, for longer than that is a dead connection

CONNECTION_LIFE_S: Final = 86_400.0  # same page; then the server disconnects

SHUTDOWN_STREAM: Final = "!serverShutdown"  # CHANGELOG, 2026-05-06
SHUTDOWN_EVENT: Final = "serverShutdown"

# binance-spot-api-docs, general API information.
EXCHANGE_INFO_PATH: Final = "/api/v3/exchangeInfo"
VOLUMES_PATH: Final = "/api/v3/ticker/24hr?type=MINI"  # of all symbols; it weighs 80
SYMBOLS: Final = 20_000  # that an answer may list; spot has 3,600 (2026), those that are gone included
WEIGHT_PER_MINUTE: Final = 6_000  # of one address, all programs together
WEIGHT_HEADER: Final = "x-mbx-used-weight-1m"

DEPTH_PATH: Final = "/api/v3/depth"
DEPTH_ROWS: Final = (
    1_000  # a side, in one answer: it weighs 50, and 5000 of them weigh 250 and hold trades up for 50 ms
)

# What a side may change in one update. Of a capture of BTCUSDT at 100 ms the largest has some hundred; twice a
# snapshot's levels at once are no market's, and their reading alone would hold everything else up for 20 ms.
DEPTH_CHANGES: Final = 2 * DEPTH_ROWS
DEPTH_BYTES: Final = 2 * DEPTH_CHANGES * 40  # both sides, with prices and quantities of 16 digits each

LIST_NAMES: Final = 2 * STREAMS_PER_CONNECTION  # in an answer to LIST_SUBSCRIPTIONS: no connection holds so many
LIST_BYTES: Final = 2**18  # of it: 250 a stream

SPOT: Final = MarketSpec(
    venue=Venue.BINANCE,
    name="spot",
    code="spot",
    stream_path=STREAM_PATH,
    exchange_info_path=EXCHANGE_INFO_PATH,
    volumes_path=VOLUMES_PATH,
    weight_per_minute=WEIGHT_PER_MINUTE,
    silence_s=TOTAL_SILENCE_S,
)
