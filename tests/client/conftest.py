"""The exchange that both ways of the client are tested against."""

from __future__ import annotations

import pytest
import trio

from komas.errors import Cause, VenueError
from tests.venues.exchange import ScriptedExchange


@pytest.fixture
def exchange(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> ScriptedExchange:
    """A scripted exchange; the REST host does not answer."""

    async def refused(*_: object, **_options: object) -> None:
        await trio.lowlevel.checkpoint()
        raise VenueError("no such endpoint", cause=Cause.REFUSED)

    for method in ("get", "get_each"):
        monkeypatch.setattr(f"komas.venues.core.rest.Rest.{method}", refused)
    return ScriptedExchange(nursery)
