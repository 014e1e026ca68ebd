"""The tree of tasks."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from komas.observability import task_tree as module
from komas.observability.task_tree import ROWS, TaskRow, task_tree

SECRET = "eyJ-a-token"


async def _wait(_token: str) -> None:
    await trio.sleep_forever()


async def _parent(children: int, name: str | None = None) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(children):
            nursery.start_soon(_wait, SECRET, name=name)


def _rows(row: TaskRow) -> list[TaskRow]:
    return [row, *(found for child in row.tasks for found in _rows(child))]


def _found(top: TaskRow, name: str) -> TaskRow:
    (row,) = [row for row in _rows(top) if row.name == name]
    return row


async def test_tasks_of_one_name_are_one_row() -> None:
    """Under their parent, with their count; by name where they have one, else by function."""
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(_parent, 2, "link", name="shard")
        nursery.start_soon(_parent, 1)
        await trio.testing.wait_all_tasks_blocked()
        count, top, left_out = await task_tree()
        shard = _found(top, "shard")
        assert (shard.count, [(row.name, row.count) for row in shard.tasks]) == (3, [("link", 6)])
        assert _found(top, f"{__name__}._wait").count == 1
        assert left_out == 0
        assert count == sum(row.count for row in _rows(top)) == trio.lowlevel.current_statistics().tasks_living
        nursery.cancel_scope.cancel()


async def test_no_argument_is_shown() -> None:
    """Also of a task whose name trio makes of a ``repr``."""

    class Handler:
        def __init__(self, token: str) -> None:
            self.token = token

        def __repr__(self) -> str:
            return f"Handler({self.token!r})"

        async def __call__(self) -> None:
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Handler(SECRET))
        nursery.start_soon(partial(partial(_wait), SECRET))
        nursery.start_soon(partial(Handler(SECRET)))
        await trio.testing.wait_all_tasks_blocked()
        _, top, _ = await task_tree()
        assert SECRET not in repr(top)
        assert any(row.name.endswith("Handler.__call__") and row.count == 2 for row in _rows(top))
        nursery.cancel_scope.cancel()


async def test_an_answer_is_bounded_and_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many names some; all tasks are counted."""
    monkeypatch.setattr(module, "ROWS", 10)
    assert ROWS > 10
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(_wait, SECRET, name=f"shard {number}")
        await trio.testing.wait_all_tasks_blocked()
        count, top, left_out = await task_tree()
        assert len(_rows(top)) <= 11
        assert left_out >= 90
        assert count == sum(row.count for row in _rows(top)) + left_out
        nursery.cancel_scope.cancel()


async def test_others_run_while_thousands_of_tasks_are_looked_at() -> None:
    """Every so many tasks."""
    turns = 0

    async def run() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_parent, 2000)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(run)
        count, _, _ = await task_tree()
        assert count > 2000
        assert turns >= 5
        nursery.cancel_scope.cancel()
