"""The user's document, as printed: its curl lines, its JavaScript in a browser, its Python."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import websockets.sync.client

from tests.e2e.processes import PATIENCE_S, ROOT, Server, running, serving, simulating, wait_for

# Printed for localhost:8000; only the port is another here.
CURL = (
    "curl -X POST http://localhost:8000/api/ws/connect",
    """curl -X POST http://localhost:8000/api/ws/subscribe \\
  -H "Content-Type: application/json" \\
  -d '{"symbols": ["BTCUSDT", "ETHUSDT"], "stream_type": "ticker"}'""",
    "curl http://localhost:8000/api/ws/status",
    'curl -X POST "http://localhost:8000/api/ws/quick/start-prices?symbols=BTCUSDT,ETHUSDT"',
    "curl http://localhost:8000/api/ws/streams",
    "curl http://localhost:8000/api/logs/today",
)

PAGE = """<!doctype html><script>
const seen = [];
const eventSource = new EventSource(
  'http://localhost:8000/api/ws/sse/prices?symbols=BTCUSDT,ETHUSDT'
);

eventSource.onmessage = (event) => {
  const data = JSON.parse(event.data);
  console.log('Price update:', data);
  seen.push(data);
  if (seen.length === 5) fetch('/seen', { method: 'POST', body: JSON.stringify(seen) });
};

eventSource.onerror = (error) => {
  console.error('SSE error:', error);
};
</script>"""

needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("line", CURL)
def test_each_curl_line(line: str, demo: Server) -> None:
    """It answers 200 with JSON."""
    command = line.replace("localhost:8000", f"localhost:{demo.port}") + r" -s -w '\n%{http_code}'"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, timeout=PATIENCE_S, check=True)
    body, _, status = answer.stdout.decode().rpartition("\n")
    assert status == "200", body
    assert isinstance(json.loads(body), dict)


@contextmanager
def _browsing(url: str, folder: Path) -> Iterator[Path]:
    """A real browser at an address; yields the file that tells its debugging port."""
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
        f"--user-data-dir={folder}", "--remote-debugging-port=0", url,
    ]  # fmt: skip
    with running(command):
        yield folder / "DevToolsActivePort"


def _evaluate(port_file: Path, expression: str) -> object:
    """What a JavaScript expression is on the open page."""
    wait_for(lambda: port_file.is_file() and port_file.read_text(), "the browser's debugging port")
    port = port_file.read_text().splitlines()[0]
    page = next(row for row in httpx.get(f"http://127.0.0.1:{port}/json").json() if row["type"] == "page")
    with websockets.sync.client.connect(page["webSocketDebuggerUrl"]) as devtools:
        devtools.send(json.dumps({"id": 1, "method": "Runtime.evaluate", "params": {"expression": expression}}))
        return json.loads(devtools.recv(timeout=PATIENCE_S))["result"]["result"].get("value")


@needs_chromium
def test_the_eventsource_example_in_chromium(demo: Server, tmp_path: Path) -> None:
    """From a page on another port, as a React application's would be."""
    received: list[list[dict[str, object]]] = []
    done = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = PAGE.replace("localhost:8000", f"localhost:{demo.port}").encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            done.set()

        def log_message(self, *_arguments: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        with _browsing(f"http://localhost:{pages.server_address[1]}/", tmp_path):
            assert done.wait(PATIENCE_S)
        pages.shutdown()
    for update in received[0]:
        data = update["data"]
        assert isinstance(data, dict)
        assert update["type"] == data["type"] == "ticker"
        assert data["symbol"] in ("BTCUSDT", "ETHUSDT")
        assert isinstance(data["price"], int | float)


@needs_chromium
def test_the_page_shows_prices(demo: Server, tmp_path: Path) -> None:
    """Rows appear by themselves, with every digit."""
    shown = "[...document.querySelectorAll('#rows tr')].map((row) => row.innerText).join('\\n')"
    with _browsing(f"{demo.url}/", tmp_path) as port_file:
        wait_for(lambda: "BTCUSDT" in str(_evaluate(port_file, shown)), "a row of BTCUSDT")
        assert re.search(r"^BTCUSDT\t\d+\.\d{8}\t-?\d+\.\d{3} %\t", str(_evaluate(port_file, shown)), re.MULTILINE)
        assert _evaluate(port_file, "document.getElementById('state').textContent") == "live"


CALLBACKS = """
import trio

from komas import BinanceWebSocket


async def main():
    ws = BinanceWebSocket()

    # Глобальные callbacks
    ws.on_connect(lambda: print("Connected!"))
    ws.on_disconnect(lambda: print("Disconnected!"))
    ws.on_error(lambda e: print(f"Error: {e}"))
    ws.on_message(lambda data: print(f"Message: {data}"))

    # Подключение
    await ws.connect()

    # Подписка на цену
    async def handle_price(data):
        print(f"{data['symbol']}: ${data['price']}")

    await ws.subscribe_ticker("BTCUSDT", handle_price)

    # Запуск event loop
    await ws.run_forever()


trio.run(main)
"""


def test_the_callbacks_example(tmp_path: Path) -> None:
    """Under trio.run, with the import as the only change; the address is the double's here."""
    with simulating() as exchange:
        file = tmp_path / "callbacks.py"
        file.write_text(CALLBACKS.replace("BinanceWebSocket()", f"BinanceWebSocket({exchange.ws_url!r})"), "utf-8")
        with running([sys.executable, "-u", "-W", "error", str(file)]) as process:
            process.line(r"^Connected!$")
            process.line(r"^Message: Ticker\(symbol='BTCUSDT'")
            process.line(r"^BTCUSDT: \$\d+\.\d{8}$")


def test_watching_from_a_pipe(demo: Server) -> None:
    """One line for each event."""
    for what, pattern in (
        (["prices", "BTCUSDT"], r"^\d\d:\d\d:\d\d\.\d{3}\tBTCUSDT\t\d+\.\d{8}\t[+-]"),
        (["klines", "BTCUSDT", "--interval", "1s"], r"\tBTCUSDT\t.*\t(open|closed)$"),
        (["trades", "BTCUSDT"], r"\tBTCUSDT\t.*\t(buy|sell)\t\d+$"),
    ):
        command = [sys.executable, "-u", "-m", "komas", "watch", *what, "--server", demo.url]
        with running(command) as process:
            process.line(pattern)


def test_watching_what_the_server_refuses(demo: Server) -> None:
    """The server's words, exit status 2."""
    with running([sys.executable, "-m", "komas", "watch", "prices", "NOPEUSDT", "--server", demo.url]) as process:
        assert process.ended() == 2
        assert process.output == ["komas: the server says: NOPEUSDT is not a symbol of the exchange"]


def test_the_demo_says_what_to_do_next(tmp_path: Path) -> None:
    """The page's address and one ready curl line, which works."""
    with serving(tmp_path, "--demo") as server:
        line = server.process.line(r"^  (curl -N '\S+')$")[1]
        answer = subprocess.run(
            ["bash", "-c", f"{line} -s --max-time 4 | head -c 2000"],
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert b'data: {"type":"ticker"' in answer.stdout


def test_the_readme_names_both_commands() -> None:
    """Exactly two, and they are the ones that CI runs."""
    readme = (ROOT / "README.md").read_text("utf-8")
    assert readme.count("<!-- demo -->") == readme.count("<!-- tests -->") == 1
