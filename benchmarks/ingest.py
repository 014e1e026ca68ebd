"""Ingest: from the exchange's socket to a subscriber at the hub, in one process.

An exchange on the other core writes a capture's frames as fast as they are read. Peers read the same frames in the same
run, alternating, each in a fresh process.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks import blast, machine, readers
from benchmarks.peers import clients
from benchmarks.processes import child
from benchmarks.readers import Reading, Task
from benchmarks.report import Row, medians
from komas.cli.progress import counted

CAPTURE: Final = Path(__file__).resolve().parents[2] / "shared" / "captures" / "btcusdt_20240808.gz"
READ_S: Final = 60.0  # one reader, one replay
PREPARE_S: Final = 60.0
BURST_FRAMES: Final = 40_000
TIMES: Final = 5  # over which the capture's frames are sent
CONTENTS: Final = {"trades and book tickers": readers.STREAMS, "trades alone": readers.STREAMS[:1]}


def readers_of() -> dict[str, Callable[[Task], Reading]]:
    """Komas, plain loops, and the named libraries that are installed."""
    return {
        "komas (feed, hub, listener)": readers.komas,
        **clients.installed(),
        "trio-websocket + json": readers.trio_websocket,
        "websockets (asyncio) + json": readers.websockets,
        "the exchange alone (bytes counted)": readers.bytes_only,
    }


def measure(rounds: int, what: str) -> tuple[str, list[Row]]:
    """What was sent, and a row for each reader: medians of the rounds; ``what`` is one of ``CONTENTS``."""
    with TemporaryDirectory(prefix="komas-bench-") as folder:
        capture = CAPTURE if CAPTURE.is_file() else _burst(Path(folder) / "burst.gz")
        _, other = machine.cores()
        results: dict[str, list[Row]] = {name: [] for name in readers_of()}
        with child(other, blast.blast, capture, CONTENTS[what], TIMES) as exchange:
            content = exchange.hear(PREPARE_S)
            assert isinstance(content, blast.Content)
            for _ in counted(range(rounds), "round"):
                for name, rows_of in results.items():
                    rows_of.append(_round(name, exchange.pid, content))
    rows = [medians(rows) for rows in results.values()]
    for row in rows:
        for column in ("frames/s", "CPU µs/frame"):
            row[f"{column} ÷ komas"] = float(row[column]) / float(rows[0][column])
    return f"{what}, {content.frames:,} frames, {capture.name} {TIMES} times over", rows


def _round(name: str, exchange_pid: int, content: blast.Content) -> Row:
    mine, _ = machine.cores()
    with child(mine, readers.read, readers_of()[name]) as reader:
        pids = (exchange_pid, reader.pid)
        spent_s, busy_s, begun_s = [machine.cpu_s(pid) for pid in pids], machine.busy_s(), time.monotonic()
        reader.tell(Task(content.port, content.first_id, content.last_id, content.frames))
        reading = reader.hear(READ_S)
        assert isinstance(reading, Reading)
        sent_s, read_s = (machine.cpu_s(pid) - before_s for pid, before_s in zip(pids, spent_s, strict=True))
        foreign = (machine.busy_s() - busy_s - sent_s - read_s) / (time.monotonic() - begun_s)
    return {
        "reader": name,
        "frames/s": reading.frames / reading.seconds,
        "CPU µs/frame": reading.cpu_s / reading.frames * 1e6,
        "reader CPU %": 100 * reading.cpu_s / reading.seconds,
        "exchange CPU %": 100 * sent_s / reading.seconds,
        "foreign CPU %": 100 * foreign,
        "ids wrong": float(reading.wrong),
    }


def _burst(path: Path) -> Path:
    """Write a capture of our own: a trade, and three book tickers, and again."""
    with gzip.open(path, "wb", compresslevel=1) as lines:
        for number in range(BURST_FRAMES):
            now_ms = 1_723_161_255_343 + number // 4
            if number % 4:
                stream, data = (
                    readers.STREAMS[1],
                    (
                        f'{{"u":{50_093_239_212 + number},"s":"BTCUSDT","b":"61837.63000000","B":"3.78000000",'
                        '"a":"61837.64000000","A":"1.54000000"}'
                    ),
                )
            else:
                stream, data = (
                    readers.STREAMS[0],
                    (
                        f'{{"e":"trade","E":{now_ms},"s":"BTCUSDT","t":{3_735_683_259 + number // 4},'
                        f'"p":"61837.63000000","q":"0.02000000","T":{now_ms},"m":true,"M":true}}'
                    ),
                )
            lines.write(f'{now_ms}000000 {{"stream":"{stream}","data":{data}}}\n'.encode())
    return path
