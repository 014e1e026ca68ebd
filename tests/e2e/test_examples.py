"""Every example of the documents is a file in examples/, and runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.browser import browsing, evaluate, needs_chromium, showing
from tests.e2e.processes import PATIENCE_S, ROOT, Process, Server, running, serving, simulating, token_for, wait_for
from tests.e2e.relay import relaying

EXAMPLES = ROOT / "examples"
BROWSER = ROOT / "tests" / "browser"
ESBUILD = BROWSER / "node_modules" / ".bin" / "esbuild"
SHOWN = {
    "README.md": ("prices.js", "iterate_trades.py", "callbacks.py"),
    "docs/protocol.md": ("signals.js",),
}


def needs(program: str) -> pytest.MarkDecorator:
    """Skipped where a program is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def test_every_example_is_in_the_list() -> None:
    """And every file that the list names is there."""
    named = re.findall(r"^\| `([\w.]+)` \|", (EXAMPLES / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted([*named, "README.md"]) == sorted(path.name for path in EXAMPLES.iterdir() if path.is_file())


@pytest.mark.parametrize("page", SHOWN)
def test_a_document_shows_the_files_as_they_are(page: str) -> None:
    """And no example that is not run."""
    text = (ROOT / page).read_text("utf-8")
    shown = re.findall(r"```(?:python|javascript)\n(.*?)```", text, re.DOTALL)
    assert shown == [(EXAMPLES / name).read_text("utf-8") for name in SHOWN[page]]


@pytest.mark.parametrize(
    ("name", "call", "pattern"),
    [
        ("iterate_trades.py", "open_binance(", r"^\d+ \d+\.\d{8} \d+\.\d{8}$"),
        ("callbacks.py", "BinanceWebSocket(", r"^BTCUSDT: \$\d+\.\d{8}$"),
    ],
)
def test_a_python_example_runs(name: str, call: str, pattern: str, tmp_path: Path) -> None:
    """Against the simulator; only the address is another."""
    with simulating() as exchange:
        file = tmp_path / name
        file.write_text(
            (EXAMPLES / name).read_text("utf-8").replace(f"{call})", f"{call}{exchange.ws_url!r})"), "utf-8"
        )
        with running([sys.executable, "-u", "-W", "error", str(file)]) as process:
            process.line(pattern)


def _trade_ids(process: Process, count: int) -> list[int]:
    """The numbers of so many trades, as the example prints them."""
    return [int(process.line(r'^(?:.*"trade_id":)?(\d+)[ ,]')[1]) for _ in range(count)]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        pytest.param(["bash"], "trades.sh", marks=needs("curl")),
        (["@python", "-u", "-W", "error"], "trades.py"),
        pytest.param(["node"], "trades.mjs", marks=needs("node")),
    ],
)
def test_an_example_of_trades_goes_on_over_a_cut(command: list[str], name: str, demo: Server) -> None:
    """With the next trade, none left out and none twice."""
    command = [sys.executable if each == "@python" else each for each in command]
    with relaying(demo.port) as relay:
        address = f"http://127.0.0.1:{relay.port}"
        with running([*command, str(EXAMPLES / name), address]) as process:
            ids = _trade_ids(process, 3)
            relay.cut()
            wait_for(lambda: relay.carried > 1, "a second connection")
            already = max(ids[-1], *(_ids_of(process.output)))
            while ids[-1] <= already + 2:
                ids += _trade_ids(process, 1)
            assert ids == list(range(ids[0], ids[0] + len(ids)))


def _ids_of(output: list[str]) -> list[int]:
    return [int(found[1]) for line in output if (found := re.match(r'^(?:.*"trade_id":)?(\d+)[ ,]', line))]


@pytest.mark.parametrize(
    ("command", "name"),
    [(["@python", "-u", "-W", "error"], "trades.py"), pytest.param(["node"], "trades.mjs", marks=needs("node"))],
)
def test_an_example_of_trades_says_what_is_missing(command: list[str], name: str, tmp_path: Path) -> None:
    """A server that was started anew does not know what it was."""
    command = [sys.executable if each == "@python" else each for each in command]
    with ExitStack() as stack:
        server = stack.enter_context(serving(tmp_path / "one", "--demo"))
        other = stack.enter_context(serving(tmp_path / "other", "--demo"))
        relay = stack.enter_context(relaying(server.port))
        process = stack.enter_context(running([*command, str(EXAMPLES / name), f"http://127.0.0.1:{relay.port}"]))
        _trade_ids(process, 2)
        relay.lead_to(other.port)
        relay.cut()
        process.line(r"^missing trades")


def test_the_asyncio_example_misses_no_signal_over_a_cut(demo: Server) -> None:
    """Those of the time in between come, once; a token that proves nothing is its end."""
    token = token_for(demo.folder, "--vip-days", "1", "--scope", "signals:publish")
    command = [sys.executable, "-u", "-W", "error", str(EXAMPLES / "signals_asyncio.py")]
    with relaying(demo.port) as relay:
        with running([*command, f"ws://127.0.0.1:{relay.port}"], {"KOMAS_TOKEN": token}) as process:
            wait_for(lambda: relay.carried, "a connection")
            numbers: list[int] = []
            while not numbers:  # until the socket is admitted
                demo.publish(token, coin_name="BEFORE")
                numbers += [int(found[1]) for line in process.output if (found := SIGNAL.match(line))]
            relay.cut()
            between = [demo.publish(token, coin_name=f"BETWEEN{index}") for index in range(3)]
            process.line(rf'^new_signal .*"id": {between[-1]}\b')
            came = [int(found[1]) for line in process.output if (found := SIGNAL.match(line))]
            assert len(set(came)) == len(came)
            assert set(between) <= set(came)
        with running([*command, f"ws://127.0.0.1:{relay.port}"], {"KOMAS_TOKEN": "wrong"}) as process:
            process.line("^1008 Unauthorized$")
            assert process.ended() == 0


SIGNAL = re.compile(r'^new_signal .*"id": (\d+)')

SPY = """<!doctype html><script>
const log = console.log;
console.log = (...words) => {
  log(...words);
  fetch('/seen', { method: 'POST', body: JSON.stringify(words) });
};
EXAMPLE
</script>"""


@needs_chromium
def test_the_prices_example_runs_in_a_browser(demo: Server, tmp_path: Path) -> None:
    """From a page on another port."""
    example = (EXAMPLES / "prices.js").read_text("utf-8").replace("localhost:8000", f"localhost:{demo.port}")
    with showing({"/": SPY.replace("EXAMPLE", example)}) as pages, browsing(f"{pages.url}/", tmp_path):
        symbol, price = pages.wait()  # type: ignore[misc]
        assert symbol in ("BTCUSDT", "ETHUSDT")  # type: ignore[has-type]
        assert isinstance(price, int | float)  # type: ignore[has-type]


@needs_chromium
def test_the_trades_example_goes_on_over_a_cut_in_a_browser(demo: Server, tmp_path: Path) -> None:
    """With the next trade."""
    with relaying(demo.port) as relay:
        example = (EXAMPLES / "trades.js").read_text("utf-8").replace("localhost:8000", f"127.0.0.1:{relay.port}")
        with showing({"/": SPY.replace("EXAMPLE", example)}) as pages, browsing(f"{pages.url}/", tmp_path):
            wait_for(lambda: len(pages.received) > 3, "trades")
            relay.cut()
            wait_for(lambda: relay.carried > 1, "a second connection")
            count = len(pages.received) + 5
            wait_for(lambda: len(pages.received) > count, "more trades")

            def is_each_there_once() -> bool:  # the page tells of each by a request of its own, in any order
                ids = sorted(int(words[0]) for words in list(pages.received))  # type: ignore[index]
                return ids == list(range(ids[0], ids[0] + len(ids)))

            wait_for(is_each_there_once, "each trade once")


@needs_chromium
@pytest.mark.skipif(not ESBUILD.is_file(), reason="esbuild is not installed: npm ci in tests/browser")
def test_the_react_example_runs_in_a_browser(demo: Server, tmp_path: Path) -> None:
    """Bundled as an application is, with the files that the server gives."""
    folder = BROWSER / f"example-{tmp_path.name}"  # beside node_modules, where React is
    try:
        (folder / "komas").mkdir(parents=True)
        for name in ("komas.js", "react.js"):
            (folder / "komas" / name).write_bytes(demo.http.get(f"/static/{name}").content)
        example = (EXAMPLES / "prices.jsx").read_text("utf-8").replace("localhost:8000", f"localhost:{demo.port}")
        (folder / "prices.jsx").write_text(example, "utf-8")
        command = [str(ESBUILD), "prices.jsx", "--bundle", "--jsx=automatic", "--outfile=bundle.js"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=PATIENCE_S)
        page = '<!doctype html><div id="root"></div><script src="bundle.js"></script>'
        files: dict[str, str | bytes] = {"/": page, "/bundle.js": (folder / "bundle.js").read_bytes()}
        with showing(files) as pages, browsing(f"{pages.url}/", tmp_path / "browser") as port_file:
            shown = "document.querySelector('#root').innerText"
            wait_for(
                lambda: re.search(r"live.*BTCUSDT \d+.*\d+ \d+\.?\d* \d", str(evaluate(port_file, shown)), re.DOTALL),
                "prices and trades",
            )
    finally:
        shutil.rmtree(folder)


@needs_chromium
def test_the_signals_example_runs_in_a_browser(demo: Server, tmp_path: Path) -> None:
    """With a VIP's token in the variable that it reads."""
    token = token_for(demo.folder, "--vip-days", "1", "--scope", "signals:publish")
    example = (EXAMPLES / "signals.js").read_text("utf-8").replace("localhost:8000", f"localhost:{demo.port}")
    page = SPY.replace("EXAMPLE", f"const token = '{token}';\n{example}")
    with showing({"/": page}) as pages, browsing(f"{pages.url}/", tmp_path):
        assert pages.wait()[0]["type"] == "connected"  # type: ignore[index]
        demo.publish(token, coin_name="NB", spread=8.84)  # the demo's own signals are up to forty seconds apart
        wait_for(lambda: any("new_signal" in str(words) for words in pages.received), "a signal")
