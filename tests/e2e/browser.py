"""A real Chromium, and the pages it is shown."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import websockets.sync.client

from tests.e2e.processes import PATIENCE_S, running, wait_for

needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed")


class Pages:
    """A web server for pages of ours; what they POST is kept."""

    def __init__(self, url: str, files: dict[str, bytes]) -> None:
        self.url = url
        self.files = files
        self.received: list[object] = []
        self.arrived = threading.Event()

    def wait(self) -> object:
        """The first thing that a page POSTs."""
        assert self.arrived.wait(PATIENCE_S)
        return self.received[0]


@contextmanager
def showing(files: Mapping[str, str | bytes]) -> Iterator[Pages]:
    """Serve files by their paths on a free port; more may be added later."""
    kept = {path: body.encode() if isinstance(body, str) else body for path, body in files.items()}
    pages = Pages("", kept)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.files.get(self.path)
            self.send_response(404 if body is None else 200)
            kind = "text/javascript" if self.path.endswith(".js") else "text/html"
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def do_POST(self) -> None:
            pages.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            pages.arrived.set()

        def log_message(self, *_arguments: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        pages.url = f"http://localhost:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield pages
        server.shutdown()


@contextmanager
def browsing(url: str, folder: Path) -> Iterator[Path]:
    """A real browser at an address; yields the file that tells its debugging port."""
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
        f"--user-data-dir={folder}", "--remote-debugging-port=0", url,
    ]  # fmt: skip
    with running(command):
        yield folder / "DevToolsActivePort"


def evaluate(port_file: Path, expression: str) -> object:
    """What a JavaScript expression is on the open page."""
    wait_for(lambda: port_file.is_file() and port_file.read_text(), "the browser's debugging port")
    port = port_file.read_text().splitlines()[0]
    page = next(row for row in httpx.get(f"http://127.0.0.1:{port}/json").json() if row["type"] == "page")
    with websockets.sync.client.connect(page["webSocketDebuggerUrl"]) as devtools:
        devtools.send(json.dumps({"id": 1, "method": "Runtime.evaluate", "params": {"expression": expression}}))
        return json.loads(devtools.recv(timeout=PATIENCE_S))["result"]["result"].get("value")
