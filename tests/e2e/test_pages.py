"""Pages in a real Chromium: what CORS lets them do, and komas's own page under a prefix and over a restart."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.browser import browsing, evaluate, needs_chromium, showing
from tests.e2e.processes import Exchange, serving, simulating, wait_for
from tests.e2e.proxies import nginx_as_it_comes, nginx_under_a_prefix, proxying

pytestmark = [pytest.mark.usefixtures("way"), needs_chromium]

STATE = "document.querySelector('.health b').textContent"
PRICE = "document.querySelector('[data-symbol=BTCUSDT] .px').textContent"
BANNER = "!document.getElementById('banner').hidden"
CURL = "document.querySelector('.d-curl code')?.textContent"
OUT = "document.querySelector('.d-out').innerText"
CHART_NOTE = "document.querySelector('.plotnote').innerText"


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    """Real prices are not needed here."""
    with simulating() as exchange:
        yield exchange


PAGE = """<!doctype html><script>
const server = 'http://localhost:PORT';
const prices = `${server}/api/ws/sse/prices?symbols=BTCUSDT`;
const may = (call) => call.then(() => true, () => false);
const events = (options) => new Promise((resolve, reject) => {
  const source = new EventSource(prices, options);
  source.onmessage = resolve;
  source.onerror = reject;
});
const fetched = (path, options) => fetch(server + path, options);
(async () => {
  const answers = {
    read: await may(fetched('/api/ws/prices')),
    events: await may(events({})),
    polyfill: await may(fetch(prices, { headers: { 'Last-Event-ID': '1', 'Cache-Control': 'no-cache' } })),
    credentials: await may(events({ withCredentials: true })),
    token: await may(fetched('/api/signals', { headers: { Authorization: 'Bearer x' } })),
    change: await may(fetched('/api/ws/subscribe', {
      method: 'POST', headers: { Authorization: 'Bearer x', 'Content-Type': 'application/json' }, body: '{}',
    })),
  };
  fetch('/', { method: 'POST', body: JSON.stringify(answers) });
})();
</script>"""


@pytest.mark.parametrize(
    ("origins", "may"),
    [
        ("{}", "read events polyfill credentials token change"),
        ("*", "read events polyfill"),
        ("*,{}", "read events polyfill credentials token change"),
        ("https://other.example", ""),
    ],
)
def test_what_a_page_of_another_origin_may_do(origins: str, may: str, exchange: Exchange, tmp_path: Path) -> None:
    """As the table in ``komas.web.cors`` has it."""
    with showing({}) as pages:
        options = ("--upstream", exchange.ws_url, "--cors-origins", origins.format(pages.url))
        with serving(tmp_path / "data", *options) as server:
            pages.files["/"] = PAGE.replace("PORT", str(server.port)).encode()
            with browsing(f"{pages.url}/", tmp_path / "browser"):
                answers = pages.wait()
    assert isinstance(answers, dict)
    assert [name for name, is_allowed in answers.items() if is_allowed] == may.split()


LIBRARY = """<!doctype html><script type="module">
import { Komas } from "http://localhost:PORT/static/komas.js";
const komas = new Komas("http://localhost:PORT/");
komas.on("error", (error) => { throw error; });
komas.trades("BTCUSDT", () => {
  if (window.later) return;
  window.later = komas.trades("ETHUSDT", ({ symbol }) => {
    window.later.close();
    fetch("/seen", { method: "POST", body: JSON.stringify(symbol) });
  });
});
</script>"""


def test_the_library_changes_its_streams_from_a_page_of_another_origin(exchange: Exchange, tmp_path: Path) -> None:
    """Its body was announced as JSON, which only a preflight could have allowed, and did not."""
    with serving(tmp_path / "data", "--upstream", exchange.ws_url) as server:
        page = LIBRARY.replace("PORT", str(server.port))
        with showing({"/": page}) as pages, browsing(f"{pages.url}/", tmp_path / "browser"):
            assert pages.wait() == "ETHUSDT"


def test_the_page_works_under_a_prefix(exchange: Exchange, tmp_path: Path) -> None:
    """It asks for its events beside itself."""
    with (
        serving(tmp_path / "data", "--upstream", exchange.ws_url) as server,
        proxying(nginx_under_a_prefix, tmp_path / "proxy", server.port) as port,
        browsing(f"http://127.0.0.1:{port}/komas/", tmp_path / "browser") as port_file,
    ):
        wait_for(lambda: any(map(str.isdigit, str(evaluate(port_file, PRICE)))), "a price of BTCUSDT")
        wait_for(lambda: evaluate(port_file, STATE) == "Live", "its state")


def test_the_page_of_the_api_works_under_a_prefix(exchange: Exchange, tmp_path: Path) -> None:
    """Also with a slash too many: it calls the server that it came from."""
    with (
        serving(tmp_path / "data", "--upstream", exchange.ws_url) as server,
        proxying(nginx_under_a_prefix, tmp_path / "proxy", server.port) as port,
        browsing(f"http://127.0.0.1:{port}/komas/docs/#get_healthz", tmp_path / "browser") as port_file,
    ):
        wait_for(lambda: f":{port}/komas/healthz" in str(evaluate(port_file, CURL)), "the line for a shell")
        evaluate(port_file, "document.querySelector('#call form .primary').click()")
        wait_for(lambda: '"status": "ok"' in str(evaluate(port_file, OUT)), "the answer")


def test_the_page_shows_the_servers_own_words(exchange: Exchange, tmp_path: Path) -> None:
    """An EventSource keeps them to itself."""
    with (
        serving(tmp_path / "data", "--upstream", exchange.ws_url) as server,
        browsing(f"{server.url}/#market/NOPEUSDT/1m", tmp_path / "browser") as port_file,
    ):
        wait_for(lambda: "NOPEUSDT is not a symbol" in str(evaluate(port_file, CHART_NOTE)), "the server's words")


def test_the_page_shows_the_log_of_a_real_server(exchange: Exchange, tmp_path: Path) -> None:
    """The page and its made-up server agreed on a name for the text of a record that no komas gives it."""
    log = "document.querySelector('[role=log]')?.textContent"
    with (
        serving(tmp_path / "data", "--upstream", exchange.ws_url) as server,
        browsing(f"{server.url}/#admin", tmp_path / "browser") as port_file,
    ):
        wait_for(lambda: evaluate(port_file, STATE) == "Live", "the page")
        evaluate(port_file, f"sessionStorage.setItem('komas.token.admin', '{server.admin_token()}'); location.reload()")
        wait_for(lambda: "INFO    connected url=" in str(evaluate(port_file, log)), "the connection with the exchange")


@pytest.mark.beneath_tls
def test_the_page_outlives_a_restart_behind_a_proxy_that_says_502(exchange: Exchange, tmp_path: Path) -> None:
    """Its EventSource gives up for good, the page says so, and makes another."""
    options = ("--upstream", exchange.ws_url)
    with (
        serving(tmp_path / "data", *options) as server,
        proxying(nginx_as_it_comes, tmp_path / "proxy", server.port) as port,
        browsing(f"http://127.0.0.1:{port}/", tmp_path / "browser") as port_file,
    ):
        wait_for(lambda: evaluate(port_file, STATE) == "Live", "the page")
        os.kill(server.process.pid, signal.SIGKILL)
        wait_for(lambda: evaluate(port_file, BANNER), "its banner")
        with serving(tmp_path / "data", *options, "--bind", f"127.0.0.1:{server.port}"):
            wait_for(lambda: evaluate(port_file, STATE) == "Live", "the page again")
            wait_for(lambda: not evaluate(port_file, BANNER), "the end of its banner")
