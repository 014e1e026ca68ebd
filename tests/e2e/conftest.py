"""Both ways out, and one demo server for the tests that only look."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.certificate import sign_certificate
from tests.e2e.processes import DIRECT_WRITES, ROOT, TLS, Server, serving

WAYS = ("direct", "plain", "tls")
OVER_TLS = ("test_line", "test_signals")  # the others look at what a relay has of its own: resets, halves, what waits


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Servers write each way; not over TLS where a test is marked as one of what lies beneath it."""
    own = [mark for mark in metafunc.definition.iter_markers("parametrize") if "way" in str(mark.args[0])]
    if "way" in metafunc.fixturenames and not own:
        name = metafunc.module.__name__.rpartition(".")[2]
        marks = {mark.name for mark in metafunc.definition.iter_markers()}
        ways = WAYS if name in OVER_TLS and "beneath_tls" not in marks else WAYS[:2]
        metafunc.parametrize("way", ways, indirect=True, scope="session")


@pytest.fixture(scope="session")
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Servers write to their clients' sockets, through TLS, or through plain ASGI; nobody can tell the difference.

    Of TLS a relay knows, which is between: clients speak as they do without.
    """
    direct = DIRECT_WRITES.set("false" if request.param == "plain" else "true")
    secured = None
    if request.param == "tls":
        secured = tmp_path_factory.mktemp("certificate")
        sign_certificate(secured, "localhost")
        pair = f'certfile = "{secured}/certificate.pem"\nkeyfile = "{secured}/key.pem"\n'
        (secured / "hypercorn.toml").write_text((ROOT / "hypercorn.toml").read_text("utf-8") + pair, "utf-8")
    tls = TLS.set(secured)
    yield str(request.param)
    TLS.reset(tls)
    DIRECT_WRITES.reset(direct)


@pytest.fixture(scope="session")
def demo(way: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``komas serve --demo``."""
    with serving(tmp_path_factory.mktemp("demo"), "--demo") as server:
        yield server
