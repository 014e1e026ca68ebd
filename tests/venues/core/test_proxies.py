"""Proxies of the environment are not used, and that is said."""

from __future__ import annotations

import pytest

from komas.venues.core.proxies import is_loopback, note_ignored_proxies


def test_an_ignored_proxy_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """REST obeyed it, the socket did not, and nothing was said; the password in it is not logged."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "")
    monkeypatch.setenv("ALL_PROXY", "http://user:secret@proxy.test:3128")
    for host in ("127.0.0.1", "stream.test", "api.test"):
        note_ignored_proxies(host)
    [record] = caplog.records
    assert "ALL_PROXY" in record.getMessage()
    assert "secret" not in record.getMessage()


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [("localhost", True), ("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("10.0.0.1", False), ("", False)],
)
def test_this_machine_is_known(host: str, is_ours: bool) -> None:  # noqa: FBT001 - a table's column
    """By its name and its addresses."""
    assert is_loopback(host) is is_ours
