"""Whatever a subscriber's socket takes, and whenever: every item once, in order, and nothing is waited for."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import trio
import trio.testing

from komas.hub.broadcast import HEARTBEAT_TOLERANCE, SLICE_S, WRITES_PER_TURN, Broadcaster, BroadcastGroup
from komas.hub.buffer import Buffer
from komas.hub.hub import Hub
from komas.hub.overflow import Batch, BoundedQueue
from komas.hub.subscription import DirectSubscription
from komas.model.codec import Envelope
from komas.model.market import FeedState, FeedStatus
from tests.builders import TICKER, TRADE, count_alive, ticker, trade


class Ids:
    """A view that shows the trades' ids, and how many were dropped."""

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ids)

    heartbeat = b"beat "

    def new_encoding(self) -> Callable[[Batch], bytes]:
        """No state."""
        return self.encode

    @staticmethod
    def encode(batch: Batch) -> bytes:
        """Each as a word."""
        words = [f"dropped{batch.dropped}"] if batch.dropped else []
        words += [str(item.sequence) for item in batch.items if isinstance(item, Envelope)]
        return "".join(f"{word} " for word in words).encode()


class Slow:
    """A socket that takes its time."""

    def __init__(self) -> None:
        self.writes = 0

    def write_nowait(self, _chunk: bytes) -> int:
        """Take it, and a good part of the slice."""
        end = time.perf_counter() + SLICE_S / WRITES_PER_TURN
        while time.perf_counter() < end:
            continue
        self.writes += 1
        return 0

    async def flush(self) -> bool:
        await trio.lowlevel.checkpoint()
        return False


class Member:
    """A subscriber without a task."""

    def __init__(self) -> None:
        self.buffer: Buffer[int, list[int]] = Buffer(BoundedQueue(100))
        self.writer = self
        self.heard: list[int] = []
        self.is_in = False

    def write_nowait(self, chunk: bytes) -> int:
        self.heard += json.loads(chunk)
        return 0

    async def flush(self) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    def drain_nowait(self) -> list[int] | None:
        return self.buffer.drain_nowait()

    def put_back(self, batch: list[int]) -> None:
        self.buffer.put_back(batch)

    def encode(self, batch: list[int]) -> bytes:
        return repr(batch).encode()

    @property
    def is_finished(self) -> bool:
        return self.buffer.is_finished

    def joined(self) -> None:
        self.is_in = True

    def left(self) -> None:
        self.is_in = False

    def wake(self) -> None:
        raise AssertionError


class Rendered:
    """A view that remembers what it has shown."""

    heartbeat = b""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def new_encoding(self) -> Callable[[list[int]], bytes]:
        """No state of its own."""
        return self._encode

    def _encode(self, batch: list[int]) -> bytes:
        self.batches.append(batch)
        return repr(batch).encode()


class Client:
    """A subscriber whose socket takes what it likes, and a task that writes what is left."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.got = b""
        self._rest = b""
        self.blocks = 0.0
        self.direct = 0

    def write_nowait(self, chunk: bytes) -> int:
        """All, a part, or nothing."""
        if self._rest or self._chance.random() < self.blocks:
            return len(chunk)
        taken = len(chunk) if self._chance.random() >= self.blocks else self._chance.randrange(len(chunk))
        self.got += chunk[:taken]
        self._rest = chunk[taken:] if taken else b""
        self.direct += taken == len(chunk)
        return len(chunk) - taken

    async def flush(self) -> bool:
        """The rest first."""
        await trio.sleep(self._chance.random() * self.blocks)
        rest, self._rest = self._rest, b""
        self.got += rest
        return bool(rest)

    async def run(self, hub: Hub, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until the end."""
        with hub.subscribe_writer([TRADE], self, Ids()) as subscription:
            task_status.started()
            while True:
                with trio.move_on_after(self._chance.choice((0.001, 0.01, 1))):
                    try:
                        batch = await subscription.receive()
                    except trio.EndOfChannel:
                        self.got += self._rest  # the end of a response is written after it
                        return
                    chunk = Ids.encode(batch)
                    with trio.CancelScope(shield=True):
                        await self.flush()
                        await trio.sleep(self._chance.random() * self.blocks)
                    self.got += chunk

    async def run_without_a_task(self, hub: Hub, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The same, by a task that is begun whenever something waits, and ends when nothing does."""
        woken = trio.Event()
        with hub.subscribe_writer([TRADE], self, Ids()) as subscription:
            task_status.started()
            while True:
                try:
                    while not subscription.rest(woken.set):
                        batch = subscription.take()
                        await self.flush()
                        await trio.sleep(self._chance.random() * self.blocks)
                        self.got += b"" if batch is None else Ids.encode(batch)
                except trio.EndOfChannel:
                    self.got += self._rest
                    return
                await woken.wait()
                woken = trio.Event()

    @property
    def ids(self) -> list[int]:
        """What it heard."""
        return [int(word) for word in self.got.split() if word != b"beat"]


@pytest.mark.parametrize("has_task", [True, False])
@pytest.mark.parametrize("seed", range(30))
async def test_everybody_hears_everything_once_and_in_order(
    seed: int,
    has_task: bool,  # noqa: FBT001 - a table
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Sockets that fill up, take halves and recover; subscribers that come, time out, go on, and leave nothing."""
    before = count_alive(DirectSubscription)
    chance = random.Random(seed)
    hub = Hub()
    clients = [Client(chance) for _ in range(20)]
    for client in clients[: seed % 20]:
        client.blocks = chance.random() * 0.7
    begun: dict[Client, int] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run, 0.05)
        async with trio.open_nursery() as subscribers:
            number = 0
            for turn in range(200):
                if turn % 10 == 0 and turn // 10 < len(clients):
                    begun[clients[turn // 10]] = number + 1
                    client = clients[turn // 10]
                    await subscribers.start(client.run if has_task else client.run_without_a_task, hub)
                for _ in range(chance.randrange(4)):
                    number += 1
                    hub.publish(TRADE, trade(number), 0)
                    if chance.random() < 0.3:
                        hub.flush()
                await trio.sleep(chance.choice((0, 0, 0.001, 0.1)))
            hub.drain()
        nursery.cancel_scope.cancel()
    for client in clients:
        assert client.ids == list(range(begun[client], number + 1))
        assert client.direct or client.blocks
    assert hub.statistics().subscribers == 0
    assert count_alive(DirectSubscription) == before


async def test_one_write_for_everything_a_publisher_had(autojump_clock: trio.testing.MockClock) -> None:
    """What was published before the publisher waits again is one write, and rendered once for all."""
    hub, chance = Hub(), random.Random(1)
    clients = [Client(chance), Client(chance)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        for client in clients:
            await nursery.start(client.run, hub)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(1, 101):
            hub.publish(TRADE, trade(number), 0)
        await trio.testing.wait_all_tasks_blocked()
        assert [client.ids for client in clients] == [list(range(1, 101))] * 2
        assert [client.direct for client in clients] == [1, 1]
        nursery.cancel_scope.cancel()


async def test_whoever_published_writes_at_once_what_it_can() -> None:
    """Several publishers share the slice of one; what takes longer is left to who delivers."""
    hub, client, slow = Hub(), Client(random.Random(1)), [Slow() for _ in range(5 * WRITES_PER_TURN)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        await nursery.start(client.run, hub)
        await trio.testing.wait_all_tasks_blocked()
        hub.publish(TRADE, trade(1), 0)
        hub.publish(TRADE, trade(2), 0)
        assert client.ids == []
        hub.flush()
        assert (client.ids, client.direct) == ([1, 2], 1)
        with ExitStack() as stack:
            for socket in slow:
                nursery.start_soon(stack.enter_context(hub.subscribe_writer([TRADE], socket, Ids())).receive)
            await trio.testing.wait_all_tasks_blocked()
            hub.publish(TRADE, trade(3), 0)
            for _publisher in range(10):
                hub.flush()
            assert 0 < sum(socket.writes for socket in slow) <= 2 * WRITES_PER_TURN
            await trio.testing.wait_all_tasks_blocked()
            assert [socket.writes for socket in slow] == [1] * len(slow)
            nursery.cancel_scope.cancel()


async def test_states_merge_on_the_direct_way_too() -> None:
    """A ticker that a newer one overtook before anybody was written to is not sent."""

    class Prices(Ids):
        @staticmethod
        def encode(batch: Batch) -> bytes:
            return b" ".join(str(item.event["price"]).encode() for item in batch.items if isinstance(item, Envelope))

    hub, client = Hub(), Client(random.Random(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        with hub.subscribe_writer([TICKER], client, Prices()) as subscription:
            nursery.start_soon(subscription.receive)
            await trio.testing.wait_all_tasks_blocked()
            for price in ("1.0", "2.0", "3.0"):
                hub.publish(TICKER, ticker(price), 0)
            hub.publish_status(FeedStatus(state=FeedState.CONNECTED))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert client.got == b"3.0"


async def test_a_stream_that_is_given_up_and_wanted_again_finds_its_audience(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Refused under its subscribers, then opened anew: they hear the new life."""
    hub, client = Hub(), Client(random.Random(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        await nursery.start(client.run, hub)
        await trio.testing.wait_all_tasks_blocked()
        hub.reject(TRADE, "halted")
        hub.publish(TRADE, trade(1), 0)  # nobody's
        await trio.sleep(5)
        hub.interest.pin([TRADE])
        hub.publish(TRADE, trade(2), 0)
        await trio.testing.wait_all_tasks_blocked()
        assert client.ids == [2]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("groups", [1, WRITES_PER_TURN * 8])
async def test_many_listeners_are_served_in_turns(groups: int) -> None:
    """Nothing else waits for the last of thousands of subscribers, be they one group or each their own."""
    slow, hub = Slow(), Hub()
    seen: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        with ExitStack() as stack:
            for count in range(WRITES_PER_TURN * 8):
                place = hub.subscribe_writer([TRADE], slow, Ids(), capacity=1 + count % groups)
                nursery.start_soon(stack.enter_context(place).receive)
            await trio.testing.wait_all_tasks_blocked()
            hub.publish(TRADE, trade(1), 0)
            while slow.writes < WRITES_PER_TURN * 8:
                seen.append(slow.writes)
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert (
        max(after - before for before, after in zip(seen, [*seen[1:], slow.writes], strict=True)) <= 3 * WRITES_PER_TURN
    )


def test_a_newcomer_hears_nothing_twice() -> None:
    """What was published before it came in, and is not served yet, it has heard by itself."""
    scheduled: list[object] = []
    group: BroadcastGroup[int, list[int]] = BroadcastGroup(
        BoundedQueue(100), lambda: lambda batch: repr(batch).encode(), scheduled.append
    )

    old, new = Member(), Member()
    group.join(old)
    group.put(1)  # the new one has heard this by itself
    group.join(new)
    assert (old.is_in, new.is_in, scheduled) == (True, False, [group])
    group.put(2)
    new.buffer.put(2)
    for _ in group.write_pending(lambda: 0.0):
        assert new.is_in
    group.put(3)
    for _ in group.write_pending(lambda: 0.0):
        assert len(scheduled) == 2
    assert (old.heard, new.heard) == ([1, 2, 3], [2, 3])
    group.put(4)
    group.leave(new)
    group.leave(new)
    assert new.buffer.drain_nowait() == [4]


def test_what_nobody_was_left_to_hear_was_still_said() -> None:
    """What is rendered next may depend on it: a newcomer has heard it by itself."""
    rendered = Rendered()
    group: BroadcastGroup[int, list[int]] = BroadcastGroup(BoundedQueue(100), rendered.new_encoding, lambda _: None)
    old, new = Member(), Member()
    group.join(old)
    group.put(1)
    group.join(new)
    serving = group.write_pending(lambda: 0.0)
    next(serving)
    group.leave(old)
    for _ in serving:
        assert new.is_in
    assert (rendered.batches, new.heard) == ([[1]], [])


def test_what_was_for_those_who_left_is_not_said_to_who_comes() -> None:
    """A newcomer has heard what came after it: its renderer must not be told what is older."""
    rendered = Rendered()
    for leaves_late in (False, True):
        group: BroadcastGroup[int, list[int]] = BroadcastGroup(BoundedQueue(100), rendered.new_encoding, lambda _: None)
        old, new = Member(), Member()
        group.join(old)
        group.put(1)
        serving = group.write_pending(lambda: 0.0)
        if leaves_late:
            next(serving)
        group.leave(old)
        assert old.buffer.drain_nowait() == [1]
        group.join(new)
        for _ in serving:
            assert new.is_in
        group.put(2)
        for _ in group.write_pending(lambda: 0.0):
            assert new.is_in
        assert new.heard == [2]
    assert rendered.batches == [[2], [2]]


@pytest.mark.parametrize("ends", [Buffer.close, Buffer.disconnect])
def test_a_newcomer_whose_end_has_come_ends_alone(ends: Callable[[Buffer[int, list[int]]], None]) -> None:
    """Whoever serves the group meets no error of one subscriber's."""
    rendered = Rendered()
    group: BroadcastGroup[int, list[int]] = BroadcastGroup(BoundedQueue(100), rendered.new_encoding, lambda _: None)
    old, buffer = Member(), Buffer(BoundedQueue[int](100))
    late = DirectSubscription(
        buffer, [], group=group, writer=Member(), encoder=rendered, replace_target=lambda *_: None
    )
    group.join(old)
    group.put(1)
    group.join(late)
    ends(buffer)
    for _ in group.write_pending(lambda: 0.0):
        continue
    assert (old.heard, len(group)) == ([1], 1)


async def test_a_silence_is_broken_by_a_heartbeat_which_news_put_off(autojump_clock: trio.testing.MockClock) -> None:
    """Fifteen seconds after whatever was written last, to everybody who listens to the same."""
    hub, first, second = Hub(), Client(random.Random(1)), Client(random.Random(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run, 15.0)
        await nursery.start(first.run, hub)
        await trio.sleep(10)
        await nursery.start(second.run, hub)
        hub.publish(TRADE, trade(1), 0)
        await trio.sleep(14.9)
        assert (first.got, second.got) == (b"1 ", b"1 ")
        await trio.sleep(0.2)
        assert (first.got, second.got) == (b"1 beat ", b"1 beat ")
        await trio.sleep(30)
        assert first.got == second.got == b"1 beat beat beat "
        nursery.cancel_scope.cancel()


class Tired:
    """A member of a group that takes a while to be written to, on a clock of its own."""

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self.writer = self
        self.heard: list[bytes] = []

    is_finished = False

    def write_nowait(self, chunk: bytes) -> int:
        self.heard.append(chunk)
        self._clock.now += 0.001
        return 0

    def drain_nowait(self) -> None:
        return None

    async def flush(self) -> bool:
        return False

    def put_back(self, batch: list[int]) -> None:
        raise AssertionError(batch)

    def encode(self, batch: list[int]) -> bytes:
        raise AssertionError(batch)

    def joined(self) -> None: ...

    def left(self) -> None: ...

    def wake(self) -> None: ...


class _Clock:
    """A slice clock that the writes move, and Trio's beside it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now + trio.current_time()


@pytest.mark.parametrize(("members", "heard"), [(2, [b"[1]", b"[2]", b"[3]"]), (3, [b"[1]", b"[2, 3]"])])
async def test_what_comes_for_many_gathers_for_twice_as_long_as_writing_to_them_took(
    members: int, heard: list[bytes], autojump_clock: trio.testing.MockClock
) -> None:
    """A write to each of a thousand costs most: of more in one, the rest is free. Few are written to at once."""
    clock = _Clock()
    broadcaster: Broadcaster[int, list[int]] = Broadcaster(clock, gather_above=2)
    group = broadcaster.open_group("key", lambda: BoundedQueue[int](100), Rendered())
    tired = [Tired(clock) for _ in range(members)]
    for member in tired:
        group.join(member)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broadcaster.run)
        for number in (1, 2, 3):
            group.put(number)
            broadcaster.flush()
            await trio.testing.wait_all_tasks_blocked()
        assert [member.heard for member in tired] == [heard[: 3 if members == 2 else 1]] * members
        await broadcaster.settled()
        assert [member.heard for member in tired] == [heard] * members
        nursery.cancel_scope.cancel()


async def test_a_large_group_that_gathers_holds_up_no_small_one(autojump_clock: trio.testing.MockClock) -> None:
    """Who reads something else is written to at once."""
    clock = _Clock()
    broadcaster: Broadcaster[int, list[int]] = Broadcaster(clock, gather_above=2)
    large, small = (broadcaster.open_group(key, lambda: BoundedQueue[int](100), Rendered()) for key in ("a", "b"))
    tired, one = [Tired(clock) for _ in range(3)], Tired(clock)
    for member in tired:
        large.join(member)
    small.join(one)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broadcaster.run)
        for number in (1, 2):
            large.put(number)
            broadcaster.flush()
        await trio.testing.wait_all_tasks_blocked()
        small.put(9)
        await trio.testing.wait_all_tasks_blocked()
        assert (one.heard, tired[0].heard) == ([b"[9]"], [b"[1]"])
        await trio.sleep(0.1)
        assert tired[0].heard == [b"[1]", b"[2]"]
        nursery.cancel_scope.cancel()


class Steps(trio.abc.Instrument):
    """Counts how often a task is run."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """One step."""
        self.count += task.name == self._name


async def test_silences_that_end_at_nearly_the_same_time_end_together(autojump_clock: trio.testing.MockClock) -> None:
    """Thousands of groups must not cost a look at all of them each."""
    hub, steps = Hub(), Steps("heartbeat")
    clients = [Client(random.Random(1)) for _ in range(300)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run, 15.0)
        with ExitStack() as stack:
            for count, client in enumerate(clients):
                place = hub.subscribe_writer([TRADE], client, Ids(), capacity=1 + count)
                nursery.start_soon(stack.enter_context(place).receive)
                await trio.sleep(0.05)  # they came over fifteen seconds
            before = trio.current_time()
            trio.lowlevel.add_instrument(steps)
            await trio.sleep(150)
            trio.lowlevel.remove_instrument(steps)
            assert steps.count <= 150 / (15 * HEARTBEAT_TOLERANCE) + 1
            assert min(client.got.count(b"beat") for client in clients) >= 10
            assert trio.current_time() - before == pytest.approx(150)
            nursery.cancel_scope.cancel()


async def test_whoever_cannot_take_the_heartbeat_is_woken_for_it(autojump_clock: trio.testing.MockClock) -> None:
    """Its own task writes one, and waits no longer than any write may."""
    hub, client = Hub(), Client(random.Random(1))
    client.blocks = 1.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run, 15.0)
        with hub.subscribe_writer([TRADE], client, Ids()) as subscription:
            before = trio.current_time()
            assert await subscription.receive() == Batch([], 0)
            assert trio.current_time() - before == pytest.approx(15.0)
        nursery.cancel_scope.cancel()


async def test_what_an_audience_had_to_drop_is_counted() -> None:
    """As for any slow reader."""
    hub = Hub()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        client = Client(random.Random(1))
        with hub.subscribe_writer([TRADE], client, Ids(), capacity=100) as subscription:
            nursery.start_soon(subscription.receive)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(300):
                hub.publish(TRADE, trade(number), 0)
            await trio.testing.wait_all_tasks_blocked()
            assert client.got.startswith(b"dropped200 200 ")
            assert hub.statistics().dropped == 200
            nursery.cancel_scope.cancel()
    assert hub.statistics().dropped == 200
