"""One VIP's signals: the union of what its connections saw is the exact sequence."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from komas.errors import SlowConsumer
from komas.model.signal_filter import EVERYTHING, SignalFilter
from komas.model.signals import SignalEnvelope, SignalInsert
from komas.signals.database import SignalDatabase
from komas.signals.delivery import Delivery
from komas.signals.validation import NewSignal, SignalChanges
from tests.signals.harness import SignalHarness, signal_harness_over
from tests.signals.test_service import PRODUCER


class _Reader:
    """A VIP that reads at its own pace, is cut off now and then, and comes back with its position."""

    def __init__(
        self,
        harness: SignalHarness,
        capacity: int,
        pause_s: Callable[[], float] = lambda: 0.0,
        wanted: SignalFilter = EVERYTHING,
    ) -> None:
        self._house = harness
        self._wanted = wanted
        self.delivery: Delivery | None = None
        self._capacity = capacity
        self._pause_s = pause_s
        self.seen: list[int] = []
        self.caught_up = 0
        self.dismissed = 0

    async def read(self, position: int | None) -> None:
        """One connection."""
        self.delivery = Delivery(
            self._house.store,
            self._house.services.channel,
            capacity=self._capacity,
            send=self._take,
            caught_up=self._count,
            wanted=self._wanted,
        )
        try:
            await self.delivery.run(position)
        except SlowConsumer:
            self.dismissed += 1

    async def _take(self, envelope: SignalEnvelope) -> None:
        await trio.sleep(self._pause_s())
        self.seen.append(envelope.event.position)

    def _count(self) -> None:
        self.caught_up += 1


async def test_replay_then_live_without_a_seam(autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase) -> None:
    """Published before, during and after the replay."""
    harness = signal_harness_over(sqlite)
    sqlite.open()
    for number in range(500):
        sqlite.publish(SignalInsert("mexc_dex", {"n": number}, "p"), 0)
    reader = _Reader(harness, 1000, lambda: 0.01)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.services.service.run)
        await harness.services.service.ready.wait()
        nursery.start_soon(reader.read, 100)
        for number in range(100):
            await harness.services.service.publish(PRODUCER, NewSignal("mexc_dex", {"n": number}))
            await harness.services.service.update(PRODUCER, number + 1, SignalChanges({"n": -1}))
            await trio.sleep(0.05)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert reader.seen == list(range(101, 701))
    assert reader.caught_up == 1
    assert harness.services.channel.statistics().subscribers == 0


async def test_from_now_on_is_from_now_on(autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase) -> None:
    """Without a position there is no replay."""
    harness = signal_harness_over(sqlite)
    sqlite.open()
    sqlite.publish(SignalInsert("mexc_dex", {"n": 0}, "p"), 0)
    reader = _Reader(harness, 10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.services.service.run)
        await harness.services.service.ready.wait()
        nursery.start_soon(reader.read, None)
        await trio.sleep(1)
        await harness.services.service.publish(PRODUCER, NewSignal("mexc_dex", {"n": 1}))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert reader.seen == [2]


async def test_more_than_waits_may_come_during_a_replay(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """The store has it: who replays is not disconnected for it."""
    harness = signal_harness_over(sqlite)
    sqlite.open()
    for number in range(20):
        sqlite.publish(SignalInsert("mexc_dex", {"n": number}, "p"), 0)
    reader = _Reader(harness, 2, lambda: 0.1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.services.service.run)
        await harness.services.service.ready.wait()
        nursery.start_soon(reader.read, 0)
        await trio.sleep(0.5)
        for number in range(20):
            await harness.services.service.publish(PRODUCER, NewSignal("mexc_dex", {"n": number}))
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert reader.seen == list(range(1, 41))
    assert (reader.dismissed, reader.caught_up) == (0, 1)


async def test_a_slow_reader_is_dismissed_and_delays_nobody(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """It comes back with its position and has lost nothing."""
    harness = signal_harness_over(sqlite)
    slow, quick = _Reader(harness, 4, lambda: 10.0), _Reader(harness, 4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.services.service.run)
        await harness.services.service.ready.wait()
        nursery.start_soon(slow.read, None)
        nursery.start_soon(quick.read, None)
        await trio.sleep(1)
        began = trio.current_time()
        for number in range(50):
            await harness.services.service.publish(PRODUCER, NewSignal("mexc_dex", {"n": number}))
            await trio.sleep(0.01)
        assert quick.seen == list(range(1, 51))
        assert trio.current_time() - began < 1
        await trio.sleep(200)
        assert slow.dismissed == 1
        assert slow.seen == list(range(1, len(slow.seen) + 1))
        nursery.start_soon(slow.read, slow.seen[-1])
        await trio.sleep(1000)
        assert slow.seen == list(range(1, 51))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_is_killed_whenever_the_union_is_the_exact_sequence(
    seed: int, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Publishers here and elsewhere, updates, readers of every speed cut off at random points, replays included."""
    chance = random.Random(seed)
    database = SignalDatabase(f"sqlite:///{tmp_path / 'komas.db'}")
    harness = signal_harness_over(database)
    readers = [_Reader(harness, chance.choice((2, 8, 64)), lambda: chance.choice((0, 0, 0.001, 0.2))) for _ in range(5)]
    cuts = 0
    done = trio.Event()

    async def come_and_go(reader: _Reader) -> None:
        nonlocal cuts
        while not done.is_set():
            with trio.move_on_after(chance.expovariate(4)):
                await reader.read(reader.seen[-1] if reader.seen else 0)
            cuts += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.services.service.run)
        await harness.services.service.ready.wait()
        for reader in readers:
            nursery.start_soon(come_and_go, reader)
        for number in range(600):
            match chance.randrange(4):
                case 0:
                    database.publish(SignalInsert("mexc_dex", {"n": number}, "elsewhere"), 0)
                case 1:
                    await harness.services.service.update(
                        PRODUCER, chance.randrange(1, 50), SignalChanges({"n": -number})
                    )
                case _:
                    with trio.move_on_after(chance.choice((0, 100))):
                        await harness.services.service.publish(PRODUCER, NewSignal("mexc_dex", {"n": number}))
            await trio.sleep(chance.expovariate(10))
        last = database.counters().position
        with trio.move_on_after(3600):
            while any(not reader.seen or reader.seen[-1] < last for reader in readers):  # noqa: ASYNC110 - all of them
                await trio.sleep(1)
        done.set()
        nursery.cancel_scope.cancel()
    for reader in readers:
        assert reader.seen == list(range(1, last + 1))
    assert cuts > 500
    assert harness.services.channel.statistics().subscribers == 0
    database.close()


async def _change_something(harness: SignalHarness, chance: random.Random, number: int) -> None:
    """Publish a signal of some coin, or change one, and its coin now and then."""
    coin: dict[str, object] = {"coin_name": chance.choice(("BTC", "btc ", "ETH", "NB", "a,b"))}
    if number and chance.randrange(2):
        changes = {"n": number, **(coin if chance.randrange(2) else {})}
        await harness.services.service.update(PRODUCER, chance.randrange(1, 40), SignalChanges(changes))
    else:
        kind = chance.choice(("mexc_dex", "funding_rate"))
        await harness.services.service.publish(PRODUCER, NewSignal(kind, {"n": number, **coin}))


@pytest.mark.parametrize("seed", range(6))
async def test_a_filter_gets_all_that_passes_it_over_every_break(
    seed: int, autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coins that change, breaks at random, a position taken from where nothing passed: each event once, in order."""
    monkeypatch.setattr("komas.signals.database_threads.SCANNED", 7)
    chance = random.Random(seed)
    harness = signal_harness_over(sqlite)
    filters = [
        SignalFilter(coins=frozenset({"btc"})),
        SignalFilter(coins=frozenset({"eth", "nb"})),
        SignalFilter(frozenset({"funding_rate"})),
        SignalFilter(frozenset({"mexc_dex"}), frozenset({"btc", "nb"})),
        SignalFilter(coins=frozenset({"nothing"})),
        EVERYTHING,
    ]
    readers = [
        _Reader(harness, chance.choice((1, 2, 64)), lambda: chance.choice((0, 0, 0.001, 0.2)), wanted)
        for wanted in filters
    ]
    done = trio.Event()
    told = [0] * len(readers)  # positions, as pings tell them

    async def come_and_go(number: int) -> None:
        reader = readers[number]
        while not done.is_set():
            with trio.move_on_after(chance.expovariate(2)):
                await reader.read(max(told[number], reader.seen[-1] if reader.seen else 0))

    async def ask() -> None:
        while True:
            for number, reader in enumerate(readers):
                if reader.delivery is not None and (position := reader.delivery.position) is not None:
                    told[number] = position
            await trio.sleep(chance.expovariate(20))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.services.service.run)
        await harness.services.service.ready.wait()
        for number in range(len(readers)):
            nursery.start_soon(come_and_go, number)
        nursery.start_soon(ask)
        for number in range(500):
            await _change_something(harness, chance, number)
            await trio.sleep(chance.expovariate(10))
        last = sqlite.counters().position
        expected = [
            [event.position for event in sqlite.events_after(0, last, 10_000, wanted=wanted)] for wanted in filters
        ]
        with trio.move_on_after(3600):
            while any(len(r.seen) < len(e) for r, e in zip(readers, expected, strict=True)):  # noqa: ASYNC110 - all
                await trio.sleep(1)
        done.set()
        nursery.cancel_scope.cancel()
    assert [reader.seen for reader in readers] == expected
    assert all(expected[number] for number in (0, 1, 2, 3))
    assert expected[4] == []
    assert told[4] > last - 100  # who is sent nothing does not come back from the beginning
    assert expected[5] == list(range(1, last + 1))


async def test_what_is_being_sent_is_not_had_yet(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """A ping between two signals of one batch told a position beyond the second."""
    harness = signal_harness_over(sqlite)
    reader = _Reader(harness, 10, lambda: 1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.services.service.run)
        await harness.services.service.ready.wait()
        nursery.start_soon(reader.read, None)
        await trio.sleep(1)
        assert reader.delivery is not None
        assert reader.delivery.position == 0
        for number in range(2):
            await harness.services.service.publish(PRODUCER, NewSignal("mexc_dex", {"n": number}))
        for seen, position in (([], None), ([1], None), ([1, 2], 2)):
            await trio.sleep(0.9 if not seen else 1)
            assert (reader.seen, reader.delivery.position) == (seen, position)
        nursery.cancel_scope.cancel()
