"""One demo server for the tests that only look."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.processes import Server, serving


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``komas serve --demo``."""
    with serving(tmp_path_factory.mktemp("demo"), "--demo") as server:
        yield server
