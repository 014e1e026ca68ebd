"""Throughput, p99, cost and memory over clients and over streams, and the start: measured and drawn.

Every server is offered the same events a second, whatever the number of clients; what it cannot take is missing from
its line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import fanout, starts, streams
from benchmarks.report import Row, table

HERE: Final = Path(__file__).parent
CLIENTS: Final = (10, 100, 500, 1000, 2000, 5000)
RATE: Final = 20.0
SECONDS: Final = 6.0
SIZE: Final = (11, 4.2)


def draw(rounds: int) -> None:
    """Measure, print and draw."""
    rows: list[Row] = []
    for clients in CLIENTS:
        rows += fanout.compare(fanout.Load(clients, RATE, SECONDS), rounds)
        print(table(f"{clients} clients, {RATE:g} events a second", rows[-len(fanout.peers()) :]), flush=True)
    many = [streams.measure(count, rounds) for count in streams.POINTS]
    print(table(streams.TITLE, many), flush=True)
    begins = starts.measure(rounds)
    print(table(starts.TITLE, begins), flush=True)
    _plot("fanout", rows, ("deliveries/s", "p99 ms"), f"{RATE:g} trades a second to SSE clients, one core")
    _plot("cost", rows, ("CPU µs/delivery",), "CPU for each delivery, and for each frame", many=many)
    _plot("memory", rows, ("KB/idle client",), "ConnectionState of an idle client, and the start", begins=begins)


def _plot(
    name: str,
    rows: Sequence[Row],
    columns: Sequence[str],
    title: str,
    *,
    many: Sequence[Row] = (),
    begins: Sequence[Row] = (),
) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - only who draws needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, 2, figsize=SIZE, layout="constrained")
    figure.suptitle(title)
    for axis, column in zip(axes, columns, strict=False):
        for server in dict.fromkeys(row["server"] for row in rows):
            own = [row for row in rows if row["server"] == server]
            axis.plot([row["clients"] for row in own], [row[column] for row in own], marker="o", label=str(server))
        is_small = column == "KB/idle client"
        axis.set(xlabel="SSE clients", ylabel=column, xscale="log", yscale="linear" if is_small else "log")
        if is_small:
            axis.set(ylim=(0, 1.6 * max(float(row[column]) for row in rows)))  # the legend is above the lines
    if many:
        axes[1].plot([row["streams"] for row in many], [row["CPU µs/frame"] for row in many], marker="o", label="komas")
        axes[1].set(xlabel="streams", ylabel="CPU µs/frame", xscale="log", ylim=(0, None))
    if begins:
        axes[1].barh([str(row["what"]) for row in begins], [float(row["start ms"]) for row in begins])
        axes[1].set(xlabel="ms from the start of the process to its first line")
        axes[1].invert_yaxis()
    for axis in axes:
        axis.grid(visible=True, which="major", alpha=0.4)
    axes[0].legend(fontsize="small")
    for suffix in ("svg", "png"):
        figure.savefig(HERE / f"{name}.{suffix}", dpi=110, metadata={"Date": None} if suffix == "svg" else None)
    plt.close(figure)
