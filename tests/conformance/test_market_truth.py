"""What clients are measured by agrees with the simulator, and sees what is wrong."""

from __future__ import annotations

from komas.simulator.fixed_point import written
from komas.simulator.player import SyntheticPlayer
from tests.conformance.market_truth import Truth

START_MS = 1_767_225_600_000
PLAYER = SyntheticPlayer(("BTCUSDT", "DOGEUSDT"), 3, START_MS)


def test_the_truth_is_the_simulators() -> None:
    """Every level of its book, and every trade with its time, whenever it was started."""
    for pair in PLAYER.market.pairs.values():
        truth = Truth(pair.symbol, 3)
        bids, asks = ([[written(x) for x in level] for level in side] for side in pair.book.best(1000))
        assert truth.is_book(pair.book.update_id, bids, asks, digits=True)
        assert truth.is_book(
            pair.book.update_id, [[price.rstrip("0"), size] for price, size in bids], asks, digits=False
        )
        assert not truth.is_book(
            pair.book.update_id, [[price.rstrip("0"), size] for price, size in bids], asks, digits=True
        )
        assert not truth.is_book(pair.book.update_id, bids[:-1], asks, digits=True)
        assert not truth.is_book(pair.book.update_id, bids, [[asks[0][0], "0.1"], *asks[1:]], digits=False)
        assert not truth.is_book(pair.book.update_id - 10**6, bids, asks, digits=True)
        mark, index = written(pair.mark_price), written(pair.last_price)
        assert truth.is_mark(mark, index)
        assert not truth.is_mark(index + "1", mark)
        for trade in pair.trades:
            told = trade.id, written(trade.price), written(trade.quantity), trade.time_ms
            assert truth.is_trade(*told, trade.buyer_is_maker, digits=True)
            assert not truth.is_trade(*told, not trade.buyer_is_maker, digits=True)


def test_what_was_made_up_is_not_looked_for_for_ever() -> None:
    """Ids that the market has not come to in an hour."""
    truth = Truth("BTCUSDT", 3)
    assert not truth.is_trade(10**15, "1", "1", 0, False, digits=True)
