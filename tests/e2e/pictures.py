"""Writes ``docs/pictures``: the page and the terminal as they are, of a ``komas serve --demo`` that it starts.

``python -m tests.e2e.pictures`` takes two minutes. It needs Debian's chromium, a font with Chinese for one of the
demo's symbols (``fonts-wqy-microhei``) and, beside the extra ``test``, ``pillow``. Look at what it has written.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from PIL import Image
from playwright.sync_api import Browser, Page, Playwright, sync_playwright
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.e2e.processes import ROOT, Server, komas, serving, wait_for
from tests.e2e.terminal import Terminal

FOLDER: Final = ROOT / "docs" / "pictures"
MOST_BYTES: Final = 150_000  # a README with three of them still opens at once
PATIENCE_MS: Final = 180_000  # the demo's signals come every half minute
# Those of the demo that trade all the time.
SYMBOLS: Final = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "XRPUSDT", "DOGEUSDT", "币安人生USDT")
COLUMNS, LINES = 100, 24
NIGHT: Final = TerminalTheme(  # the page's dark colours: background, text, then the eight of terminals
    (0x12, 0x15, 0x1A),
    (0xE9, 0xEC, 0xF0),
    [
        (0x25, 0x2B, 0x33),
        (0xFF, 0x73, 0x78),
        (0x3F, 0xCB, 0x8F),
        (0xF0, 0xC2, 0x61),
        (0x6D, 0xB6, 0xFF),
        (0xC8, 0xA0, 0xF0),
        (0x70, 0xD0, 0xD8),
        (0xB3, 0xBB, 0xC5),
    ],
)
TERMINAL_PAGE: Final = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0 }}
pre {{
  display: inline-block; margin: 0; padding: 12px 16px; color: {foreground}; background: {background};
  font: 13.288px/18px "DejaVu Sans Mono", monospace; /* 8 px a column: no seams in a bar */
}}
</style><pre>{code}</pre>"""

# Each price of the list, the order book and four signals, where they are shown at all.
IS_FULL: Final = """() => {
  const shown = (selector) => [...document.querySelectorAll(selector)].filter((node) => node.offsetParent);
  const have = (selector) => shown(selector).every((node) => /\\d/.test(node.textContent));
  const signals = document.querySelectorAll("k-dock tbody tr").length;
  return [".inst .last", "k-watchlist .px", "k-book .row"].every(have) && (signals > 3 || !shown("k-dock").length);
}"""


class Shot(NamedTuple):
    """One picture of the page; sizes in CSS pixels."""

    name: str
    width: int
    height: int
    scale: float
    theme: str
    language: str


SHOTS: Final = (
    Shot("market", 1440, 900, 1, "dark", "en"),
    Shot("market-ru", 1440, 900, 1, "light", "ru"),
    Shot("phone", 390, 844, 1.5, "dark", "en"),
)


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), "--demo") as server,
        sync_playwright() as driver,
    ):
        token = server.process.line(r"--token (\S+)")[1]
        for shot in SHOTS:
            with browser(driver, shot.scale) as chromium, page_of(chromium, server, shot, token) as page:
                keep(shot.name, page.screenshot())
        with browser(driver, 1.5) as chromium:
            page = chromium.new_page(device_scale_factor=1.5)
            page.set_content(terminal_page(server))
            keep("terminal", page.locator("pre").screenshot())


@contextmanager
def browser(driver: Playwright, scale: float) -> Iterator[Browser]:
    """Its own scale: the chart's canvas does not follow one that is only emulated."""
    options = ["--no-sandbox", "--disable-gpu", f"--force-device-scale-factor={scale}"]
    chromium = driver.chromium.launch(executable_path="/usr/bin/chromium", args=options)
    yield chromium
    chromium.close()


@contextmanager
def page_of(chromium: Browser, server: Server, shot: Shot, token: str) -> Iterator[Page]:
    """The page when everything has come: prices, candles, and signals of a VIP's token."""
    context = chromium.new_context(
        viewport={"width": shot.width, "height": shot.height}, device_scale_factor=shot.scale, timezone_id="UTC"
    )
    settings: Mapping[str, object] = {"theme": shot.theme, "language": shot.language, "watchlist": SYMBOLS}
    for name, value in settings.items():
        context.add_init_script(f"localStorage.setItem('komas.{name}', {json.dumps(json.dumps(value))})")
    context.add_init_script(f"sessionStorage.setItem('komas.token.signals', {json.dumps(token)})")
    page = context.new_page()
    page.goto(f"{server.url}/")
    page.wait_for_function(IS_FULL, timeout=PATIENCE_MS)
    page.wait_for_timeout(3_000)  # a tape that is full, flashes that are over
    yield page
    context.close()


def terminal_page(server: Server) -> str:
    """``komas watch depth`` in a terminal, as HTML."""
    frames: list[str] = []
    with Terminal(komas("watch", "depth", "BTCUSDT", "--server", server.url), COLUMNS, LINES) as terminal:

        def is_full() -> object:
            frames.append(terminal.newest)
            return len(frames[-1].split("\r\n")) == LINES and re.search(r"[▁-█]{10}", frames[-1].split("\r\n")[0])

        wait_for(is_full, "a full screen")
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(frames[-1].replace("\r\n", "\n")))
    return console.export_html(theme=NIGHT, code_format=TERMINAL_PAGE, inline_styles=True)


def keep(name: str, png: bytes) -> None:
    """With a palette of 256 colours, none of them off by more than an eye can see: a third of the bytes."""
    file = FOLDER / f"{name}.png"
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE).save(file, optimize=True)
    assert file.stat().st_size < MOST_BYTES, f"{file} is too large"


if __name__ == "__main__":
    main()
