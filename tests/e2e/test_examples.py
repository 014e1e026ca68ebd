"""Every example of the documents is a file in examples/, and runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.e2e.browser import browsing, needs_chromium, showing
from tests.e2e.processes import ROOT, Server, running, simulating, token_for, wait_for

EXAMPLES = ROOT / "examples"
SHOWN = {
    "README.md": ("prices.js", "iterate_trades.py", "callbacks.py"),
    "docs/protocol.md": ("signals.js",),
}


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
def test_the_signals_example_runs_in_a_browser(demo: Server, tmp_path: Path) -> None:
    """With a VIP's token in the variable that it reads."""
    token = token_for(demo.folder, "--vip-days", "1", "--scope", "signals:publish")
    example = (EXAMPLES / "signals.js").read_text("utf-8").replace("localhost:8000", f"localhost:{demo.port}")
    page = SPY.replace("EXAMPLE", f"const token = '{token}';\n{example}")
    with showing({"/": page}) as pages, browsing(f"{pages.url}/", tmp_path):
        assert pages.wait()[0]["type"] == "connected"  # type: ignore[index]
        demo.publish(token, coin_name="NB", spread=8.84)  # the demo's own signals are up to forty seconds apart
        wait_for(lambda: any("new_signal" in str(words) for words in pages.received), "a signal")
