"""Both ways out."""

from __future__ import annotations

import pytest

from tests.web.house import EdgeHouse


@pytest.fixture(params=["plain", "direct"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an SSE client hears is the same, through ASGI or written to its connection."""
    monkeypatch.setattr(EdgeHouse, "is_direct", request.param == "direct")
