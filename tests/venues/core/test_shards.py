"""Everything wanted has one place, nothing moves without need, no shard is over-full."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from komas.venues.core.shards import Move, plan


def _after(shards: dict[int, list[str]], moves: list[Move[str]]) -> dict[int, list[str]]:
    """Carry the moves out."""
    result = {shard: list(streams) for shard, streams in shards.items()}
    for move in moves:
        if move.source is not None:
            result[move.source].remove(move.stream)
        if move.target is not None:
            result.setdefault(move.target, []).append(move.stream)
    return result


def test_the_first_streams_fill_one_shard_after_another() -> None:
    """In the order of the wishes."""
    assert _after({}, plan(list("abcde"), {}, 2)) == {0: ["a", "b"], 1: ["c", "d"], 2: ["e"]}


def test_a_place_that_was_left_is_taken_again() -> None:
    """The others stay where they are."""
    assert plan(list("acdx"), {0: list("ab"), 1: list("cd")}, 2) == [Move("b", 0, None), Move("x", None, 0)]


def test_a_free_number_makes_the_new_shard() -> None:
    """Numbers do not grow for ever."""
    assert plan(list("cd"), {1: ["c"]}, 1) == [Move("d", None, 0)]


def test_what_does_not_fit_any_more_moves() -> None:
    """And nothing else does."""
    assert plan(list("abc"), {0: list("abc")}, 2) == [Move("c", 0, 1)]


STREAMS = st.sampled_from("abcdefghijklmnop")


@given(
    wanted=st.lists(STREAMS, unique=True),
    placed=st.dictionaries(STREAMS, st.integers(0, 6)),
    most=st.integers(1, 6),
)
def test_a_plan_holds_its_laws(wanted: list[str], placed: dict[str, int], most: int) -> None:
    """Never over the cap, nothing wanted is missing or double, nothing unwanted stays, no move is needless."""
    shards: dict[int, list[str]] = {}
    for stream, shard in placed.items():
        shards.setdefault(shard, []).append(stream)
    moves = plan(wanted, shards, most)
    after = _after(shards, moves)
    assert sorted(stream for streams in after.values() for stream in streams) == sorted(wanted)
    assert all(len(streams) <= most for streams in after.values())

    kept = [sum(stream in wanted for stream in streams) for streams in shards.values()]
    overflow = sum(max(0, count - most) for count in kept)
    assert len(moves) == len(set(wanted) ^ set(placed)) + overflow
    assert plan(wanted, after, most) == []
