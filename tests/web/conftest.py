"""Both ways out."""

from __future__ import annotations

import pytest

from tests.web.harness import WebHarness


@pytest.fixture(params=["plain", "direct"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an SSE client hears is the same, through ASGI or written to its connection."""
    monkeypatch.setattr(WebHarness, "is_direct", request.param == "direct")
