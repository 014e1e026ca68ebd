"""The pages and what they are made of: ``komas/web/static``, and the chart's script.

Everything is read once, at the start, and packed when it is first asked for, which takes as long as all of that. A
browser asks again each time (``no-cache``) and is told when nothing changed.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from functools import cached_property
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from quart import Blueprint, Response, request

from komas.web.problems import ProblemError

# Nothing from elsewhere, nothing inline, nothing as HTML. Workers have a policy of their own, that of their script.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types komas"  # one policy, for the address of the worker
)
CHART: Final = "lightweight-charts.js"  # TradingView's, 5.1.0, as the package litecharts brings it

STATIC: Final = Path(__file__).parents[1] / "static"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",  # a declaration of types, for editors
}
_PAGES: Final = {"/": "index.html", "/docs": "docs.html"}  # each has its row in komas/web/openapi.py


class StaticFile:
    """One file as it is sent, plain or packed; ``tag`` is the strong ETag of the plain one."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self.body = body
        self.content_type = content_type
        self.tag = hashlib.sha256(body).hexdigest()[:32]

    @cached_property
    def packed(self) -> bytes:
        """By gzip. No time in it: the same file has the same bytes, and the same tag, in each process."""
        return gzip.compress(self.body, mtime=0)


def pages() -> Blueprint:
    """The routes: the pages at their addresses, and every file below ``/static/``."""
    routes = Blueprint("pages", __name__)
    files = dict(_files())

    @routes.get("/static/<path:name>")
    async def static(name: str) -> Response:
        file = files.get(name)
        if file is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such file")
        return _respond(file)

    for address, name in _PAGES.items():
        routes.add_url_rule(address, name.partition(".")[0], _page(files[name]), methods=["GET"])
    return routes


def _page(file: StaticFile) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:
        if request.path.endswith("/") and request.path != "/":
            # Its addresses are relative: one step further down they would lead nowhere.
            target = f"../{request.path.rstrip('/').rpartition('/')[2]}"
            return Response(b"", HTTPStatus.PERMANENT_REDIRECT, {"Location": target})
        return _respond(file)

    return page


def _respond(file: StaticFile) -> Response:
    is_packed = request.accept_encodings["gzip"] > 0
    headers = {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY, "Vary": "Accept-Encoding"}
    if is_packed:
        headers["Content-Encoding"] = "gzip"
    body = file.packed if is_packed else file.body
    response = Response(body, HTTPStatus.OK, headers, content_type=file.content_type)
    tag = f"{file.tag}-gzip" if is_packed else file.tag  # another representation, another tag (RFC 9110, 8.8.3)
    response.set_etag(tag)
    if tag in request.if_none_match:
        response.status_code = HTTPStatus.NOT_MODIFIED
        response.set_data(b"")
    return response


def _files() -> Iterator[tuple[str, StaticFile]]:
    for path in STATIC.rglob("*"):
        if path.suffix in _TYPES:
            yield path.relative_to(STATIC).as_posix(), _read(path)
    yield CHART, _read(chart_script())


def _read(path: Path) -> StaticFile:
    return StaticFile(path.read_bytes(), _TYPES[path.suffix])


def chart_script() -> Path:
    """Where ``litecharts`` keeps the chart's script; the package itself is not imported."""
    found = find_spec("litecharts")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("litecharts is not installed; it brings the chart of the page")
    return Path(found.origin).parent / "js" / CHART
