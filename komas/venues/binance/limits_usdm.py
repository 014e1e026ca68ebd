"""What Binance's USD-M futures say of themselves, where it is not what spot says: numbers and names, nothing else."""

from __future__ import annotations

from typing import Final

from komas.model.kinds import Venue
from komas.venues.binance.limits import MarketSpec

# Since 2026-04-23 (Binance's notice of 2026-03-06) streams are split by class; one that is subscribed on the wrong
# class is acknowledged and never delivers (binance-public-data#472). Mark prices are of the class "market".
STREAM_PATH: Final = "/market/stream"

# Pings each 3 min, a pong within 10 (docs); 140 s and 320 s were measured (polyoxide, 2026-10-07).
TOTAL_SILENCE_S: Final = 660.0

EXCHANGE_INFO_PATH: Final = "/fapi/v1/exchangeInfo"
VOLUMES_PATH: Final = "/fapi/v1/ticker/24hr"  # of all symbols; it weighs 40
WEIGHT_PER_MINUTE: Final = 2_400  # shared with COIN-M since 2026-06-30 (ccxt#28971)

# Ten incoming messages a second are allowed, spot allows five (docs); we keep spot's pace, and spot's 200 names in one
# message, the most that was seen to pass on futures (2026-10).

USD_M: Final = MarketSpec(
    venue=Venue.BINANCE_USDM,
    name="usd-m futures",
    code="usd_m",
    stream_path=STREAM_PATH,
    exchange_info_path=EXCHANGE_INFO_PATH,
    volumes_path=VOLUMES_PATH,
    weight_per_minute=WEIGHT_PER_MINUTE,
    silence_s=TOTAL_SILENCE_S,
)
