"""Which symbols the exchange lists, as far as it answers.

A stream for an unknown symbol is acknowledged and then silent for ever (Binance.Net#620), so names are checked here,
before anybody waits. Where the REST host does not answer, a name is neither known nor unknown, and is let through.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from decimal import Decimal
from typing import Final

import msgspec
import trio

from komas.errors import VenueError
from komas.event_log import event_logger
from komas.model.symbols import SymbolInfo
from komas.venues.binance import limits
from komas.venues.binance.wire import check
from komas.venues.core.complaints import Complaints
from komas.venues.core.ports import Unreadable
from komas.venues.core.rest import Rest
from komas.venues.core.words import cut

log = event_logger(__name__)

FRESH_S: Final = 600.0  # symbols are listed a few times a week; ten minutes late is early enough for a name to be known
RECHECK_S: Final = 60.0  # a name that is not there may have been listed since: asked again, once a minute at most
RETRY_S: Final = 30.0
FIRST_ANSWER_S: Final = 3.0  # how long a user's request waits for the first answer


class _Filter(msgspec.Struct):
    """``{"filterType":"PRICE_FILTER","minPrice":"0.01","maxPrice":"1000000.00","tickSize":"0.01"}``."""

    filterType: str = ""  # noqa: N815 - the exchange's keys
    tickSize: Decimal | None = None  # noqa: N815
    stepSize: Decimal | None = None  # noqa: N815


class _Symbol(msgspec.Struct):
    """``{"timezone":"UTC",...,"symbols":[{"symbol":"BTCUSDT","status":"TRADING",...}]}``: one of the symbols."""

    symbol: str
    status: str = "TRADING"
    baseAsset: str = ""  # noqa: N815 - the exchange's keys
    quoteAsset: str = ""  # noqa: N815
    filters: tuple[_Filter, ...] = ()


TRADING: Final = "TRADING"
_PRICES: Final = "PRICE_FILTER"
_QUANTITIES: Final = "LOT_SIZE"
_NO_FILTER: Final = _Filter()
SHOWN: Final = 60  # characters of a symbol or a status: the longest has 20


class Listings:
    """The exchange's symbols; ``run()`` keeps them fresh. ``version`` differs after every change."""

    def __init__(self, rest: Rest, path: str = limits.EXCHANGE_INFO_PATH, market: str = "spot") -> None:
        self._rest = rest
        self._market = market
        self._path = path
        self._complaints = Complaints(log)
        self._symbols: dict[str, SymbolInfo] = {}
        self._left_out: set[str] = set()  # by the last answer, though listed before
        self._asked_at = -RECHECK_S
        self._answered = trio.Event()  # the first answer has come, or has failed to
        self._recheck = trio.Event()
        self._changes = trio.lowlevel.ParkingLot()
        self.version = 0

    @property
    def known(self) -> bool:
        """Whether the exchange has ever told its symbols."""
        return bool(self._symbols)

    async def run(self) -> None:
        """Fetch at once, then periodically, and when an unknown name is asked for; until cancelled."""
        while True:
            wait_s = await self._ask()
            self._answered.set()
            with trio.move_on_after(wait_s):
                await self._recheck.wait()

    def trading(self) -> tuple[str, ...]:
        """The symbols that trade now."""
        return tuple(symbol for symbol, info in self._symbols.items() if info.status == TRADING)

    def all(self) -> Collection[SymbolInfo]:
        """Every symbol that is listed."""
        return self._symbols.values()

    def status(self, symbol: str) -> str | None:
        """What the exchange says of a symbol: ``TRADING``, ``BREAK``, ...; ``None`` for one that it does not list."""
        info = self._symbols.get(symbol)
        return None if info is None else info.status

    async def answered(self) -> bool:
        """Wait for the first answer, within bounds; whether the symbols are known."""
        with trio.move_on_after(FIRST_ANSWER_S):
            await self._answered.wait()
        return self.known

    async def changed(self, seen: int) -> int:
        """Wait until ``version`` is not ``seen``, and return it."""
        while self.version == seen:
            await self._changes.park()
        return self.version

    async def unknown(self, symbols: Iterable[str]) -> list[str]:
        """Those of the symbols that the exchange does not list; none while it does not answer."""
        await self.answered()
        missing = self._missing(symbols)
        if missing and trio.current_time() - self._asked_at >= RECHECK_S:
            self._answered = trio.Event()
            self._recheck.set()
            with trio.move_on_after(FIRST_ANSWER_S):
                await self._answered.wait()
            missing = self._missing(missing)
        return missing

    def _missing(self, symbols: Iterable[str]) -> list[str]:
        return [symbol for symbol in symbols if symbol not in self._symbols] if self._symbols else []

    async def _ask(self) -> float:
        """Ask once; returns the seconds until the next time."""
        self._asked_at = trio.current_time()
        self._recheck = trio.Event()
        params = {"showPermissionSets": "false"}
        try:
            found = await self._rest.get_each(self._path, "symbols", _Symbol, params, most=limits.SYMBOLS)
        except VenueError as error:
            self._complaints.warning("symbols not checked", asked=self._path, reason=str(error))
            return max(RETRY_S, error.retry_after_s or 0.0)
        symbols = {listed.symbol: self._info(listed) for listed in found if len(listed.symbol) <= SHOWN}
        if not symbols:
            self._complaints.warning("symbols not checked", asked=self._path, reason="the exchange listed none")
            return RETRY_S
        left_out = self._symbols.keys() - symbols.keys()
        doubtful = left_out - self._left_out
        self._left_out = left_out
        symbols |= {
            symbol: self._symbols[symbol] for symbol in doubtful
        }  # one answer may be incomplete; what the next one leaves out, too, is gone
        if symbols != self._symbols:
            self._symbols = symbols
            self.version += 1
            self._changes.unpark_all()
        return RETRY_S if doubtful else FRESH_S

    def _info(self, listed: _Symbol) -> SymbolInfo:
        steps = {each.filterType: each for each in listed.filters}
        return SymbolInfo(
            symbol=listed.symbol,
            status=cut(listed.status, SHOWN),
            base=cut(listed.baseAsset, SHOWN),
            quote=cut(listed.quoteAsset, SHOWN),
            tick_size=_step(steps.get(_PRICES, _NO_FILTER).tickSize),
            step_size=_step(steps.get(_QUANTITIES, _NO_FILTER).stepSize),
            market=self._market,
        )


def _step(value: Decimal | None) -> Decimal | None:
    """A step of prices or quantities; ``None`` for what cannot be one."""
    try:
        check(*() if value is None else (value,))
    except Unreadable:
        return None
    return value or None  # 0 stands for none
