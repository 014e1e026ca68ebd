"""Everything at once: faults by a seed against the whole market line, on one clock; a failing seed replays exactly."""

from __future__ import annotations

import gzip
import random
import re
from pathlib import Path

import pytest
import trio
import trio.testing

from benchmarks import chaos
from komas.hub.hub import Hub
from komas.model.codec import Envelope
from komas.model.kinds import Kind
from komas.model.market import FeedState, FeedStatus, Trade
from komas.model.streams import Stream
from komas.simulator import fault_script
from komas.simulator.options import SimOptions
from komas.simulator.replay import read_captures

CAPTURE = Path(__file__).parents[3] / "shared" / "captures" / "btcusdt_20240808.gz"


@pytest.mark.parametrize("redundancy", [1, 2])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_is_lost_or_doubled_whatever_happens(seed: int, redundancy: int) -> None:
    """A hundred faults: what is missing was declared, and nothing was declared that REST had."""
    report = chaos.run(100, seed, redundancy=redundancy)
    assert report.is_clean, list(report.lines())
    assert report.expected > 1000
    assert report.backfilled + report.rotations > 10


def test_a_seed_replays_exactly() -> None:
    """To the millisecond in which each event was delivered."""
    first, second = (chaos.run(40, 7) for _ in range(2))
    assert first == second
    assert first.digest != chaos.run(40, 8).digest


async def test_an_outage_of_forty_seconds(autojump_clock: trio.testing.MockClock) -> None:
    """With the default waits between dials: whoever listens stays, is told, and gets the trades that were missed."""
    trades = Stream(Kind.TRADE, "BTCUSDT")
    dice = random.Random(1)
    states: list[FeedState] = []
    heard: list[Envelope] = []

    async def listen(hub: Hub) -> None:
        with hub.subscribe([trades]) as subscription:
            while True:
                for item in (await subscription.receive()).items:
                    if isinstance(item, Envelope):
                        heard.append(item)
                    elif isinstance(item.notice, FeedStatus):
                        states.append(item.notice.state)

    async with chaos.open_world(SimOptions(symbols=("BTCUSDT",)), [trades], dice.random) as world:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, world.hub)
            await trio.sleep(10)
            world.strike(fault_script.Outage(seconds=40))
            await trio.sleep(60)
            nursery.cancel_scope.cancel("by the test")
        report = world.report(1)
    assert FeedState.RECONNECTING in states
    assert states[-1] is FeedState.CONNECTED
    missed_ms = [item.event.timestamp for item in heard if item.backfilled and isinstance(item.event, Trade)]
    assert missed_ms[-1] - missed_ms[0] > 38_000
    assert not heard[-1].backfilled
    numbers = [item.event.trade_id for item in heard if isinstance(item.event, Trade)]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert (report.lost, report.doubled, report.declared, report.reconnects) == (0, 0, 0, 1)


@pytest.mark.skipif(not CAPTURE.exists(), reason="the capture is not beside the project")
async def test_a_capture_with_cuts_arrives_to_the_last_id(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Every trade of the file once, in order, with the exchange's digits, with a cut every few seconds."""
    trades = Stream(Kind.TRADE, "BTCUSDT")
    dice = random.Random(1)
    # Three lines in four are of streams that nobody asks for here; they would be played, and sent to nobody.
    asked_for = tmp_path / "trades.gz"
    with gzip.open(CAPTURE) as captured, gzip.open(asked_for, "w", compresslevel=1) as kept:
        kept.writelines(line for line in captured if b'"stream":"btcusdt@trade"' in line)
    options = SimOptions(replay=(asked_for,))
    async with chaos.open_world(options, [trades], dice.random) as world:
        while not world.exchange.state.replay_finished:
            await trio.sleep(dice.uniform(2, 30))
            world.strike(
                dice.choice(
                    [fault_script.Abort(), fault_script.Close(), fault_script.HalfOpen(), fault_script.Shutdown(), None]
                )
            )
        await trio.sleep(30)
    told, values = world.ledger.told[trades], world.ledger.values[trades]
    pattern = re.compile(rb'"t":(\d+),"p":"([\d.]+)","q":"([\d.]+)"')
    lines = [line for line in read_captures([CAPTURE]).lines if line.stream == "btcusdt@trade"]
    found = [found for line in lines if (found := pattern.search(line.raw))]
    expected = [(int(number), *(int(digits.replace(b".", b"")) for digits in (price, size))) for number, price, size in
                (match.groups() for match in found)]  # fmt: skip
    assert len(expected) > 9_000
    assert told.numbers == [number for number, _, _ in expected]
    assert [values[number][:2] for number in told.numbers] == [(price, size) for _, price, size in expected]
    assert world.gap_filler.statistics().filled > 100
    assert told.declared == []
