"""The tasks of this ``trio.run()``, as a tree of names.

Names say which function runs, never what it was given. Tasks of one name under one parent are one row with their count,
so that thousands of connections are a few rows.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final

import msgspec
import trio

ROWS: Final = 1000  # of an answer
NAME: Final = 100  # characters
_IS_NAME: Final = re.compile(r"\w[\w .<>/-]*")
SLICE: Final = 200  # tasks, between which others run: a third of a millisecond on a slow machine


class TaskRow(msgspec.Struct):
    """So many tasks of one name; ``tasks`` are their children."""

    name: str
    count: int = 0
    tasks: list[TaskRow] = msgspec.field(default_factory=list)


async def task_tree() -> tuple[int, TaskRow, int]:
    """How many tasks there are, the tree from its root, and how many tasks are left out of it.

    It is looked at in slices: what begins or ends meanwhile may be missing.
    """
    root = trio.lowlevel.current_root_task()
    assert root is not None  # this is a task of it
    top = TaskRow(_name(root))
    places: dict[tuple[int, str], TaskRow] = {}
    waiting: deque[tuple[trio.lowlevel.Task, TaskRow]] = deque([(root, top)])
    seen = left_out = 0
    while waiting:
        task, row = waiting.popleft()
        seen += 1
        row.count += 1
        if seen % SLICE == 0:
            await trio.lowlevel.checkpoint()
        for nursery in task.child_nurseries:
            for child in nursery.child_tasks:
                key = id(row), _name(child)
                if (place := places.get(key)) is None and len(places) < ROWS:
                    place = places[key] = TaskRow(key[1])
                    row.tasks.append(place)
                if place is None:
                    left_out += 1
                else:
                    waiting.append((child, place))
    _sort(top)
    return seen + left_out, top, left_out


def _name(task: trio.lowlevel.Task) -> str:
    """The task's name, or its function's: a repr, which trio takes where there is none, may show arguments."""
    name = task.name if _IS_NAME.fullmatch(task.name) else str(task.coro.__qualname__)
    return name[:NAME]


def _sort(top: TaskRow) -> None:
    rows = [top]
    while rows:
        row = rows.pop()
        row.tasks.sort(key=lambda each: (-each.count, each.name))
        rows += row.tasks
