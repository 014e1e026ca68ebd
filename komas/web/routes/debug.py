"""What the server is doing, for administrators: its tasks, and how late they run."""

from __future__ import annotations

import msgspec
import trio
from quart import Blueprint, Response

from komas.observability.task_tree import TaskRow, task_tree
from komas.web.routes.control import json_response
from komas.web.services import Services


class LoopLagRow(msgspec.Struct, frozen=True):
    """How late a task ran that was due: the last time, and at most in the last minute; seconds."""

    last_s: float
    max_s: float


class TasksBody(msgspec.Struct, frozen=True):
    """``GET /debug/tasks``; ``count`` is of all tasks, of which ``left_out`` are not in the tree."""

    count: int
    left_out: int
    loop_lag: LoopLagRow
    root: TaskRow


def debug(services: Services) -> Blueprint:
    """The routes; who calls was checked before."""
    routes = Blueprint("debug", __name__, url_prefix="/debug")

    @routes.get("/tasks")
    async def tasks() -> Response:
        lag = services.loop_lag
        measured = LoopLagRow(round(lag.last_s, 6), round(lag.longest_s(trio.current_time()), 6))
        count, root, left_out = await task_tree()
        return json_response(TasksBody(count, left_out, measured, root))

    return routes
