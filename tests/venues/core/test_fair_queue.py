"""Owners take turns; what many want is served in the turn that comes first."""

from __future__ import annotations

from komas.venues.core.fair_queue import OWNERS_LOOKED_AT, REMEMBERED, FairQueue


def _served(queue: FairQueue[str]) -> list[str]:
    served = []
    while (first := queue.first()) is not None:
        queue.serve(first[0])
        served.append(first[0])
    return served


def test_who_wants_one_thing_waits_for_one_turn_of_each_other() -> None:
    """Not behind the hundred that another one wanted before."""
    queue: FairQueue[str] = FairQueue()
    for number in range(100):
        queue.put(f"a{number}", ["a"])
    queue.put("b0", ["b"])
    queue.put("b1", ["b"])
    served = _served(queue)
    assert served[:4] == ["a0", "b0", "a1", "b1"]
    assert served[4:] == [f"a{number}" for number in range(2, 100)]
    assert not len(queue)


def test_a_newcomer_is_served_next_however_long_others_were_served() -> None:
    """And has no turns saved up from the time in which it asked for nothing."""
    queue: FairQueue[str] = FairQueue()
    for number in range(100):
        queue.put(f"a{number}", ["a"])
    for _ in range(50):
        first = queue.first()
        assert first is not None
        queue.serve(first[0])
    for number in range(5):
        queue.put(f"b{number}", ["b"])
    served = _served(queue)
    assert served[0] == "b0"
    assert set(served[:10]) == {*(f"b{number}" for number in range(5)), *(f"a{number}" for number in range(50, 55))}


def test_an_item_of_several_owners_is_served_once_in_the_earliest_turn() -> None:
    """Whether an owner came with it or later."""
    queue: FairQueue[str] = FairQueue()
    for number in range(10):
        queue.put(f"a{number}", ["a"])
    queue.put("both", ["a", "b"])
    queue.put("a9", ["c"])
    assert "both" in queue
    served = _served(queue)
    assert served[:3] == ["a0", "both", "a9"]
    assert sorted(served) == sorted({*served})


def test_what_is_discarded_is_passed_over_and_may_come_back() -> None:
    """It waits anew then."""
    queue: FairQueue[str] = FairQueue()
    for item in ("x", "y"):
        queue.put(item, ["a"])
    queue.discard("x")
    queue.discard("never there")
    assert "x" not in queue
    assert queue.first() == ("y", "a")
    queue.put("x", ["a"])
    assert _served(queue) == ["y", "x"]


def test_an_item_without_an_owner_is_ours() -> None:
    """A pinned stream has no readers."""
    queue: FairQueue[str] = FairQueue()
    queue.put("pinned", [])
    assert queue.first() == ("pinned", "")


def test_any_number_of_owners_costs_a_bounded_memory() -> None:
    """Those are remembered who had most."""
    queue: FairQueue[str] = FairQueue()
    for number in range(100):
        queue.put(f"heavy {number}", ["heavy"])
    for number in range(20 * REMEMBERED):
        queue.put(f"item {number}", [f"owner {number}"])
        queue.serve(f"item {number}")
    queue.put("late", ["heavy"])
    queue.put("new", ["new"])
    assert _served(queue)[-1] == "late"
    assert len(queue._next) <= 2 * REMEMBERED  # noqa: SLF001 - nothing else shows it


def test_of_an_item_that_everybody_owns_some_are_looked_at() -> None:
    """A pass over ten thousand readers would take longer than it matters."""
    looked = 0

    def owners() -> object:
        nonlocal looked
        for number in range(10_000):
            looked += 1
            yield f"owner {number}"

    queue: FairQueue[str] = FairQueue()
    queue.put("popular", owners())  # type: ignore[arg-type]
    assert looked <= OWNERS_LOOKED_AT + 1
