"""No token reaches Hypercorn's access log, whatever its format writes."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypercorn.config import Config

from komas.settings import Settings
from komas.web.hypercorn.install import install

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjMifQ.c2lnbmF0dXJl"
FORMAT = (
    "%(h)s %(r)s %(R)s %(U)s %(q)s %(Uq)s %({authorization}i)s %({cookie}i)s %({sec-websocket-protocol}i)s"
    " %({x-other}i)s %(f)s %(a)s %(s)s"
)


async def test_no_token_is_written_by_any_format(caplog: pytest.LogCaptureFixture) -> None:
    """In the query, in the path, in headers that are made for it and in others; the rest of the line is written."""
    install(Settings())
    config = Config()
    config.accesslog = logging.getLogger("tests.access")
    config.access_log_format = FORMAT
    names = (b"authorization", b"cookie", b"sec-websocket-protocol", b"referer", b"x-other")
    scope: Any = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": f"/healthz/{TOKEN}",
        "query_string": f"token={TOKEN}".encode(),
        "headers": [(name, f"bearer.{TOKEN}".encode()) for name in names] + [(b"user-agent", b"curl")],
        "client": ("192.0.2.1", 40000),
    }
    with caplog.at_level(logging.INFO, "tests.access"):
        await config.log.access(scope, {"status": 200, "headers": []}, 0.1)
    assert not [part for part in TOKEN.split(".")[1:] if part in caplog.text]
    assert "192.0.2.1:40000 GET /healthz/" in caplog.text
    assert "curl 200" in caplog.text
