"""The user's document, as printed: its curl lines, its JavaScript in a browser, its Python."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.browser import browsing, evaluate, needs_chromium, showing
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
    'curl -H "Authorization: Bearer $ADMIN_TOKEN" http://localhost:8000/api/logs/today',
)

pytestmark = pytest.mark.usefixtures("way")

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


@pytest.mark.beneath_tls
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("line", CURL)
def test_each_curl_line(line: str, demo: Server) -> None:
    """It answers 200 with JSON."""
    command = line.replace("localhost:8000", f"localhost:{demo.port}") + r" -s -w '\n%{http_code}'"
    environment = {**os.environ, "ADMIN_TOKEN": demo.admin_token()}
    answer = subprocess.run(
        ["bash", "-c", command], capture_output=True, timeout=PATIENCE_S, check=True, env=environment
    )
    body, _, status = answer.stdout.decode().rpartition("\n")
    assert status == "200", body
    assert isinstance(json.loads(body), dict)


@needs_chromium
def test_the_eventsource_example_in_chromium(demo: Server, tmp_path: Path) -> None:
    """From a page on another port, as a React application's would be."""
    page = PAGE.replace("localhost:8000", f"localhost:{demo.port}")
    with showing({"/": page}) as pages, browsing(f"{pages.url}/", tmp_path):
        received = pages.wait()
    assert isinstance(received, list)
    for update in received:
        data = update["data"]
        assert isinstance(data, dict)
        assert update["type"] == data["type"] == "ticker"
        assert data["symbol"] in ("BTCUSDT", "ETHUSDT")
        assert isinstance(data["price"], int | float)


@needs_chromium
def test_the_page_shows_prices(demo: Server, tmp_path: Path) -> None:
    """They appear by themselves, with every digit of the tick."""
    price = "document.querySelector('[data-symbol=BTCUSDT] .px').textContent"
    with browsing(f"{demo.url}/", tmp_path) as port_file:
        wait_for(lambda: re.search(r"\d", str(evaluate(port_file, price))) is not None, "a price of BTCUSDT")
        assert re.fullmatch(r"[\d\u202f]+\.\d{2}", str(evaluate(port_file, price)))
        wait_for(lambda: evaluate(port_file, "document.querySelector('.health b').textContent") == "Live", "its state")


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
    """A heading, then one line for each event: the whole moment, and every digit but zeros at the end."""
    moment, number = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", r"\d+(\.\d*[1-9])?"
    for what, pattern in (
        (["prices", "BTCUSDT"], rf"^{moment}\tBTCUSDT\t{number}\t[+-]?{number}\t[+-]?{number}(\t{number}){{5}}$"),
        (["klines", "BTCUSDT", "--interval", "1s"], rf"^{moment}\tBTCUSDT\t1s(\t{number}){{7}}\t(open|closed)$"),
        (["trades", "BTCUSDT"], rf"^{moment}\tBTCUSDT(\t{number}){{3}}\t(buy|sell)\t\d+$"),
        (["depth", "BTCUSDT"], rf"^{moment}\tBTCUSDT(\t{number}){{5}}\t\d+$"),
        (["status"], rf"^{moment}\tconnected\tyes(\t{number}){{14}}\t$"),
    ):
        command = [sys.executable, "-u", "-m", "komas", "watch", *what, "--server", demo.url]
        with running(command) as process:
            process.line("^time\t")
            process.line(pattern)


def _terminal_lines() -> list[str]:
    page = (ROOT / "docs" / "terminal.md").read_text("utf-8")
    [block] = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    return [line.partition("#")[0].strip() for line in block.splitlines()]


@pytest.mark.parametrize("line", _terminal_lines())
def test_each_line_of_the_terminal_page(line: str, demo: Server) -> None:
    """Into a pipe; what ends by itself ends well."""
    watch = f"{shlex.quote(sys.executable)} -u -m komas watch --server {demo.url}"
    with running(["bash", "-c", f"set -o pipefail; {line.replace('komas watch', watch)}"]) as process:
        process.line(r'^\{"type":"(connection|trade)"' if "--json" in line else "^time\t")
        if "head" in line:
            assert process.ended() == 0
            assert len(process.output) == 3
        else:
            process.line(r"^\d{4}-\d\d-\d\dT.*\t")


def test_watching_what_the_server_refuses(demo: Server) -> None:
    """The server's words, exit status 2."""
    with running([sys.executable, "-m", "komas", "watch", "prices", "NOPEUSDT", "--server", demo.url]) as process:
        assert process.ended() == 2
        assert process.output == ["komas: the server says: NOPEUSDT is not a symbol of the exchange"]
    with running([sys.executable, "-m", "komas", "watch", "depth", "btcusd", "--server", demo.url]) as process:
        assert process.ended() == 2
        words = "BTCUSD is not a symbol of the exchange; did you mean BTCUSDT?"
        assert process.output == [f"komas: the server says: {words}"]


@pytest.mark.beneath_tls
def test_the_demo_says_what_to_do_next(tmp_path: Path) -> None:
    """The page's address and one ready curl line, which works."""
    with serving(tmp_path, "--demo") as server:
        line = server.process.line(r"^  (curl -N '\S+')$")[1]
        with running(["bash", "-c", f"{line} -s"]) as curl:
            curl.line(r'^data: \{"type":"ticker"')
