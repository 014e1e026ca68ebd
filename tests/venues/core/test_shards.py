"""Everything wanted has one place, nothing moves without need, no shard is over-full."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from komas.model.kinds import Kind
from komas.model.streams import Stream
from komas.venues.core.shards import Shards
from tests.venues.holders import HoldingConnection

STREAMS = {letter: Stream.of(Kind.TRADE, f"{letter}USDT") for letter in "ABCDEFGHIJKLMNOP"}
LETTERS = st.lists(st.sampled_from(sorted(STREAMS)), unique=True)


def _shards(most: int) -> Shards[HoldingConnection]:
    return Shards(most)


def _place(
    shards: Shards[HoldingConnection], wanted: str, unwanted: str = "", *, keeps_idle: bool = False
) -> list[int]:
    """Returns the numbers of the new shards."""
    streams = [STREAMS[letter] for letter in wanted], [STREAMS[letter] for letter in unwanted]
    return [shard.number for shard in shards.place(*streams, keeps_idle=keeps_idle)]


def _shown(shards: Shards[HoldingConnection]) -> dict[int, str]:
    return {shard.number: "".join(stream.symbol[0] for stream in shard.streams.values()) for shard in shards}


def test_the_first_streams_fill_one_shard_after_another() -> None:
    """In the order of the wishes."""
    shards = _shards(2)
    assert _place(shards, "ABCDE") == [0, 1, 2]
    assert _shown(shards) == {0: "AB", 1: "CD", 2: "E"}
    assert [shard.number for stream in STREAMS.values() if (shard := shards.by_stream.get(stream))] == [0, 0, 1, 1, 2]


def test_a_place_that_was_left_is_taken_again() -> None:
    """The others stay where they are, also those that are wanted once more."""
    shards = _shards(2)
    _place(shards, "ABCD")
    assert _place(shards, "AE", "B") == []
    assert _shown(shards) == {0: "AE", 1: "CD"}


def test_a_free_number_makes_the_new_shard() -> None:
    """Numbers do not grow for ever; a shard without streams is closed."""
    shards = _shards(1)
    _place(shards, "AB")
    first = next(iter(shards))
    assert _place(shards, "", "A") == []
    assert first.scope.cancel_called
    assert _place(shards, "C") == [0]
    assert _shown(shards) == {1: "B", 0: "C"}


def test_one_shard_stays_where_a_connection_is_kept_idle() -> None:
    """The same one, before, between and after streams."""
    shards = _shards(1)
    assert _place(shards, "", keeps_idle=True) == [0]
    assert _place(shards, "AB", keeps_idle=True) == [1]
    assert _place(shards, "", "AB", keeps_idle=True) == []
    assert len(_shown(shards)) == 1
    assert _place(shards, "", keeps_idle=False) == []
    assert shards.is_empty


@given(changes=st.lists(st.tuples(LETTERS, LETTERS), max_size=8), most=st.integers(1, 6))
def test_places_hold_their_laws(changes: list[tuple[list[str], list[str]]], most: int) -> None:
    """Never over the cap, nothing wanted is missing or double, nothing unwanted stays, nothing moves without need."""
    shards = _shards(most)
    there: set[str] = set()
    for wanted, unwanted in changes:
        gone = [letter for letter in unwanted if letter not in wanted]
        before = dict(shards.by_stream)
        _place(shards, "".join(wanted), "".join(gone))
        there = (there | set(wanted)) - set(gone)
        shown = _shown(shards)
        assert sorted("".join(shown.values())) == sorted(there)
        assert all(0 < len(streams) <= most for streams in shown.values())
        assert all(shards.by_stream[stream] is shard for stream, shard in before.items() if stream in shards.by_stream)
