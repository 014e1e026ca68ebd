"""The ways out, and one demo server for the tests that only look."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from benchmarks.certificate import sign_certificate
from tests.e2e.processes import DIRECT_WRITES, ROOT, TLS, Server, serving

WAYS = ("direct", "plain", "tls")
WANTED = os.environ.get("E2E_WAYS", " ".join(WAYS)).split()  # .ci/run has one of the last two on each Python


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for the way runs each way; not over TLS if it is marked as one of what lies beneath it."""
    if "way" in metafunc.fixturenames:
        is_beneath = metafunc.definition.get_closest_marker("beneath_tls") is not None
        ways = [way for way in WAYS if way in WANTED and not (is_beneath and way == "tls")]
        metafunc.parametrize("way", ways, indirect=True, scope="session")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Set the way before the test's own fixtures start their servers; who asks for none has the usual one."""
    way = (
        item.callspec.params.get("way", WAYS[0])
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else WAYS[0]
    )
    DIRECT_WRITES.set("false" if way == "plain" else "true")
    TLS.set(_certificate() if way == "tls" else None)


@pytest.fixture(scope="session")
def way(request: pytest.FixtureRequest) -> str:
    """Servers write to their clients' sockets, through plain ASGI, or through TLS; nobody can tell the difference.

    Of TLS a relay knows, which is between: clients speak as they do without.
    """
    return str(request.param)


@cache
def _certificate() -> Path:
    """A folder with a certificate for localhost, its key, and Hypercorn's settings with both."""
    folder = Path(tempfile.mkdtemp(prefix="komas-certificate-"))
    atexit.register(shutil.rmtree, folder)
    sign_certificate(folder, "localhost")
    pair = f'certfile = "{folder}/certificate.pem"\nkeyfile = "{folder}/key.pem"\n'
    (folder / "hypercorn.toml").write_text((ROOT / "hypercorn.toml").read_text("utf-8") + pair, "utf-8")
    return folder


@pytest.fixture(scope="session")
def demo(way: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``komas serve --demo``."""
    with serving(tmp_path_factory.mktemp("demo"), "--demo") as server:
        yield server
