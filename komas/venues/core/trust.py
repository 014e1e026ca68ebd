"""Whom komas trusts: the same for sockets and for REST, so that one cannot work where the other does not."""

from __future__ import annotations

import os
import ssl


def read_trust_store() -> ssl.SSLContext:
    """Trust the system's certificates and certifi's; those of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` alone, where set.

    It reads files for tens of milliseconds: call it in a thread. Raises ``OSError``, of which ``ssl.SSLError`` is one,
    for a file that cannot be read.
    """
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file or folder:
        return ssl.create_default_context(cafile=file or None, capath=folder or None)
    import certifi  # noqa: PLC0415 - loaded in that thread, too

    trusted = ssl.create_default_context()
    trusted.load_verify_locations(certifi.where())  # slim containers, and Python from python.org, have no system store
    return trusted
