"""One trust store for sockets and for REST."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import certifi
import pytest

from komas.errors import VenueError
from komas.venues.core import rest, trust
from komas.venues.core.websocket import open_tcp

ONE = Path(certifi.where()).read_text("utf-8").partition("-----END CERTIFICATE-----")
STORES: list[Callable[[], ssl.SSLContext]] = [trust.read_trust_store, rest.read_trust_store.__wrapped__]


@pytest.mark.parametrize("read", STORES, ids=["sockets", "rest"])
def test_the_store_is_the_systems_and_certifis(
    read: Callable[[], ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets had the first alone, REST the second alone: where one was missing, half of komas worked."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    trusted = read()
    system, bundle = ssl.create_default_context(), ssl.create_default_context(cafile=certifi.where())
    known = {certificate["serialNumber"] for certificate in trusted.get_ca_certs()}
    for part in (system, bundle):
        assert known >= {certificate["serialNumber"] for certificate in part.get_ca_certs()}
    assert trusted.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("read", STORES, ids=["sockets", "rest"])
def test_a_file_of_the_environment_is_trusted_alone(
    read: Callable[[], ssl.SSLContext], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By both."""
    file = tmp_path / "one.pem"
    file.write_text(ONE[0] + ONE[1] + "\n", "utf-8")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    assert len(read().get_ca_certs()) == 1


async def test_a_file_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before anything is dialled; the system's store is not taken in its place."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    with pytest.raises(VenueError, match="whom to trust cannot be read"):
        await open_tcp("exchange.test", 443, tls=True)
