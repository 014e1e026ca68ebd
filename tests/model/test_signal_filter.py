"""Which signals a reader wants: names in any way of writing them, and what an update was before."""

from __future__ import annotations

import msgspec
import pytest

from komas.model.signal_filter import COIN_LENGTH, EVERYTHING, SignalFilter, coin_key
from komas.model.signals import SignalEvent


@pytest.mark.parametrize(
    ("written", "published"),
    [
        ("btc", "BTC"),
        (" BTC\t", "Btc"),
        ("币安人生", "币安人生"),
        ("e\u0301toile", "\u00c9TOILE"),
        ("$WIF", "$wif"),
        ("USD Coin", "usd coin"),
        ("straße", "STRASSE"),
        ("BTC/USDT", "btc/usdt"),
    ],
)
def test_a_name_is_found_however_it_is_written(written: str, published: str) -> None:
    """Case, blanks around it, and composed or decomposed letters make no difference."""
    assert coin_key(written) == coin_key(published) is not None


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "A,B",
        "a\x00b",
        "a\nb",
        "\u200b",
        "a\u202eb",
        "\ufffd",
        "x" * (COIN_LENGTH + 1),
        None,
        7,
        ["A"],
    ],
)
def test_what_no_list_can_hold_has_no_key(name: object) -> None:
    """PostgreSQL stores no NUL in a text, and indexes none of 16 KB: such names are published all the same."""
    assert coin_key(name) is None


def test_a_key_is_its_own_key() -> None:
    """Or a name would not be found by what it was stored as."""
    for name in ("İstanbul", "ΐ" * COIN_LENGTH, "ﬁ", "\u0345a", "ǰ"):
        key = coin_key(name)
        assert key is not None
        assert coin_key(key[:COIN_LENGTH]) == key[:COIN_LENGTH]
        assert len(key.encode()) <= 6 * COIN_LENGTH  # two of them fit an index entry of PostgreSQL (2704 bytes)


def _event(*coins: str, signal_type: str = "mexc_dex") -> SignalEvent:
    return SignalEvent(1, 1, signal_type, is_new=not coins[1:], data=msgspec.Raw(b"{}"), coins=coins)


def test_an_update_passes_by_the_coin_before_and_after_it() -> None:
    """Who has a signal that is another coin's now would keep it as it was."""
    wanted = SignalFilter(coins=frozenset({"btc"}))
    assert [wanted.passes(_event(*coins)) for coins in (["btc"], ["eth"], ["eth", "btc"], ["btc", "eth"], [])] == [
        True,
        False,
        True,
        True,
        False,
    ]


def test_both_must_pass_and_nothing_is_everything() -> None:
    """An empty filter lets signals without a coin pass, too."""
    both = SignalFilter(frozenset({"mexc_dex"}), frozenset({"btc"}))
    assert both.passes(_event("btc"))
    assert not both.passes(_event("btc", signal_type="funding_rate"))
    assert not both.passes(_event("eth"))
    assert EVERYTHING.passes(_event())
    assert not EVERYTHING
    assert hash(both) == hash(SignalFilter(frozenset({"mexc_dex"}), frozenset({"btc"})))
