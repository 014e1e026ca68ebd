"""The page in a real Chromium while fifty symbols change a hundred times a second each."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from benchmarks import machine, page_feed
from benchmarks.processes import child, komas
from benchmarks.report import Row, medians
from komas.cli.progress import counted

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession

TITLE: Final = "the page: one tab, every symbol of its watchlist in one connection"
WARM_S: Final = 8.0
WAIT_MS: Final = 60_000
CHROMIUM: Final = "/usr/bin/chromium"
WATCH_TASKS: Final = """window.long = [];
new PerformanceObserver((list) => window.long.push(...list.getEntries().map(({ duration }) => duration)))
  .observe({ type: "longtask" });"""


class Load(msgspec.Struct, frozen=True):
    """So many symbols, looked at for so long."""

    symbols: int = 50
    seconds: float = 20.0


def measure(load: Load, rounds: int, picture: Path | None = None) -> Row:
    """The row of one load; the page as it looked is written to ``picture``."""
    return medians([_round(load, picture) for _ in counted(range(rounds), "round")])


def _round(load: Load, picture: Path | None) -> Row:
    _, other = machine.cores()  # Chromium may have all
    names = page_feed.symbols(load.symbols)
    with child(other, page_feed.feed, load.symbols) as exchange:
        upstream = f"ws://127.0.0.1:{exchange.hear()}"
        with komas(other, "serve", "--upstream", upstream, "--default-symbols", ",".join(names)) as server:
            ours = (server.pid, exchange.pid, os.getpid())
            return _look(load, f"http://127.0.0.1:{server.port}/", names, ours, picture)


def _look(load: Load, url: str, names: list[str], ours: tuple[int, ...], picture: Path | None) -> Row:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only this part needs it

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.add_init_script(f"localStorage.setItem('komas.watchlist', '{msgspec.json.encode(names).decode()}')")
        page.add_init_script(WATCH_TASKS)
        page.goto(url)
        page.wait_for_selector("k-book .bids .row", timeout=WAIT_MS)
        devtools, whole = page.context.new_cdp_session(page), browser.new_browser_cdp_session()
        devtools.send("Performance.enable")
        page.wait_for_timeout(1000 * WARM_S)
        page.evaluate("window.long.length = 0")
        before = _Reading(devtools, whole, *ours)
        page.wait_for_timeout(1000 * load.seconds)
        after = _Reading(devtools, whole, *ours)
        long = page.evaluate("window.long")
        if picture is not None:
            page.screenshot(path=str(picture))
        devtools.send("HeapProfiler.collectGarbage")
        heap = page.evaluate("performance.memory.usedJSHeapSize")
        browser.close()
    return after.since(before) | {
        "long tasks": len(long),
        "longest ms": max(long, default=0.0),
        "heap MB": after.heap / 1e6,
        "after GC MB": heap / 1e6,
    }


class _Reading:
    """What has been used up to now."""

    def __init__(self, devtools: CDPSession, whole: CDPSession, *ours: int) -> None:
        self.at = time.monotonic()
        metrics = {row["name"]: row["value"] for row in devtools.send("Performance.getMetrics")["metrics"]}
        self.heap = metrics["JSHeapUsedSize"]
        processes = whole.send("SystemInfo.getProcessInfo")["processInfo"]
        renderers = [row["id"] for row in processes if row["type"] == "renderer"]
        self.renderers = {pid: machine.threads_s(pid) for pid in renderers}
        self.resident = max(machine.private_mb(pid) for pid in renderers)
        self.chromium = sum(row["cpuTime"] for row in processes)
        self.ours = [machine.cpu_s(pid) for pid in ours]
        self.busy = machine.busy_s()

    def since(self, before: _Reading) -> Row:
        """In percent of one core."""
        took = self.at - before.at
        threads: Counter[str] = Counter()
        for pid, used in self.renderers.items():
            threads.update(used)
            threads.subtract(before.renderers.get(pid, {}))
        chromium = self.chromium - before.chromium
        ours = [now - then for now, then in zip(self.ours, before.ours, strict=True)]
        return {
            "main thread %": 100 * threads["main"] / took,
            "worker %": 100 * sum(used for name, used in threads.items() if "Worker" in name) / took,
            "renderer %": 100 * threads.total() / took,
            "all of Chromium %": 100 * chromium / took,
            "komas %": 100 * ours[0] / took,
            "foreign %": 100 * (self.busy - before.busy - chromium - sum(ours)) / took,
            "renderer MB": self.resident,
        }
