"""What the judge of event streams lets pass, and what it does not."""

from __future__ import annotations

import pytest

from tests.conformance.sse_judge import Judge

TRADES = {"BTCUSDT": dict.fromkeys(range(1, 10), ("1.50", "2.0", True))}


def _trade(number: int, price: str = "1.50", identity: str = "e-1") -> list[str]:
    trade = f'{{"symbol":"BTCUSDT","trade_id":{number},"price":{price},"quantity":2.0,"is_buyer_maker":true}}'
    return ["message", identity, f'{{"type":"trade","data":{trade}}}']


def _gap(first: str, last: str, filled: str = "false") -> list[str]:
    return ["gap", "", f'{{"stream":"btcusdt@trade","from":{first},"to":{last},"filled":{filled}}}']


@pytest.mark.parametrize(
    ("events", "missing"),
    [
        ([_trade(1), _trade(2)], 0),
        ([_trade(1), _gap("2", "3"), _trade(4)], 2),
        ([_trade(1), _gap("null", "null"), _trade(4)], 2),
        ([_trade(1), _gap("2", "3", "true"), _trade(2)], 0),
    ],
)
def test_what_is_right_passes(events: list[list[str]], missing: int) -> None:
    """In order, or declared."""
    judge = Judge(TRADES)
    assert judge.faults(events) == []
    assert judge.missing == missing


@pytest.mark.parametrize(
    "events",
    [
        [_trade(1), _trade(3)],
        [_trade(1), _trade(1)],
        [_trade(2), _trade(1)],
        [_trade(1), _gap("2", "2"), _trade(4)],
        [_trade(1), _gap("2", "3", "true"), _trade(4)],
        [_trade(1), _gap("2", "3"), _trade(2), _trade(4)],
        [_trade(1, "1.5")],
        [_trade(1, identity="")],
        [["message", "e-1", ""]],
        [["lagged", "", "{}"]],
    ],
    ids=["lost", "doubled", "backwards", "more lost", "not filled", "an old gap", "digits", "no id", "empty", "lagged"],
)
def test_what_is_wrong_does_not(events: list[list[str]]) -> None:
    """Once is enough."""
    assert len(Judge(TRADES).faults(events)) == 1


def test_parts_are_one_stream() -> None:
    """What is lost between two cases is lost."""
    judge = Judge(TRADES)
    assert judge.faults([_trade(1)]) == []
    assert judge.faults([_trade(3)]) == ["BTCUSDT 2 to 2 are lost without a word"]
