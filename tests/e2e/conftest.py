"""Both ways out, and one demo server for the tests that only look."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.processes import DIRECT_WRITES, Server, serving


@pytest.fixture(scope="session", params=["direct", "plain"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Servers write to their clients' sockets, or through plain ASGI; nobody can tell the difference."""
    token = DIRECT_WRITES.set("true" if request.param == "direct" else "false")
    yield
    DIRECT_WRITES.reset(token)


@pytest.fixture(scope="session")
def demo(way: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``komas serve --demo``."""
    with serving(tmp_path_factory.mktemp("demo"), "--demo") as server:
        yield server
