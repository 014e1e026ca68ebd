"""Ingest: from the exchange's socket to a listener at the hub, in one process.

The exchange's double replays a capture as fast as it is read, on the other core. Peers read the same frames in the
same run, alternating, each in a fresh process against a fresh double.
"""

from __future__ import annotations

import gzip
import re
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks import machine, readers
from benchmarks.processes import child, komas
from benchmarks.readers import Reading, Task
from benchmarks.report import Row, medians

CAPTURE: Final = Path(__file__).resolve().parents[2] / "shared" / "captures" / "btcusdt_20240808.gz"
READ_S: Final = 60.0  # one reader, one replay
TRADE_ID: Final = re.compile(rb'"t":(\d+)')
BURST_FRAMES: Final = 40_000
READERS: Final = {
    "komas (feed, hub, listener)": readers.komas,
    "trio-websocket + json": readers.trio_websocket,
    "websockets (asyncio) + json": readers.websockets,
    "double alone (bytes counted)": readers.bytes_only,
}


def measure(rounds: int) -> tuple[str, list[Row]]:
    """What was replayed, and a row for each reader: medians of the rounds."""
    with TemporaryDirectory(prefix="komas-bench-") as folder:
        capture = CAPTURE if CAPTURE.is_file() else _burst(Path(folder) / "burst.gz")
        first_id, last_id, frames = _content(capture)
        results: dict[str, list[Row]] = {name: [] for name in READERS}
        for _ in range(rounds):
            for name in READERS:
                results[name].append(_round(name, capture, first_id, last_id, frames))
    rows = [medians(rows) for rows in results.values()]
    for row in rows:
        for column in ("frames/s", "CPU µs/frame"):
            row[f"{column} ÷ komas"] = float(row[column]) / float(rows[0][column])
    return f"{frames:,} frames of {capture.name}", rows


def _round(name: str, capture: Path, first_id: int, last_id: int, frames: int) -> Row:
    mine, other = machine.cores()
    with (
        komas(other, "simulate", "--replay", str(capture), "--speed", "inf") as double,
        child(mine, readers.read, READERS[name]) as reader,
    ):
        spent_s, busy_s, begun_s = machine.cpu_s(double.pid), machine.busy_s(), time.monotonic()
        reader.tell(Task(double.port, first_id, last_id, frames))
        reading = reader.hear(READ_S)
        assert isinstance(reading, Reading)
        spent_s, busy_s = machine.cpu_s(double.pid) - spent_s, machine.busy_s() - busy_s
        foreign = (busy_s - spent_s - reading.cpu_s) / (time.monotonic() - begun_s)
    return {
        "reader": name,
        "frames/s": reading.frames / reading.seconds,
        "µs/frame": reading.seconds / reading.frames * 1e6,
        "CPU µs/frame": reading.cpu_s / reading.frames * 1e6,
        "reader CPU %": 100 * reading.cpu_s / reading.seconds,
        "double CPU %": 100 * spent_s / reading.seconds,
        "foreign CPU %": 100 * foreign,
        "ids wrong": float(reading.wrong),
    }


def _content(capture: Path) -> tuple[int, int, int]:
    """First and last id of the trades, and how many frames there are to read; the trades must have no gap."""
    wanted = tuple(b'{"stream":"%b"' % name.encode() for name in readers.STREAMS)
    with gzip.open(capture) as lines:
        frames = [frame for frame in (line.partition(b" ")[2] for line in lines) if frame.startswith(wanted)]
    ids = [int(found[1]) for frame in frames if frame.startswith(wanted[0]) and (found := TRADE_ID.search(frame))]
    assert ids == list(range(ids[0], ids[-1] + 1))
    return ids[0], ids[-1], len(frames)


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
