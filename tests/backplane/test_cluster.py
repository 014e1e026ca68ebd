"""Several nodes, one feed: whoever dies, and whatever the store forgets, readers get each trade once."""

from __future__ import annotations

import random

import msgspec
import pytest
import trio
import trio.testing

from komas.backplane.interest import ClusterInterest
from komas.backplane.nodes import NODES, NodeRow, write_node
from komas.backplane.ports import VERSION, Entry, EntryId
from komas.backplane.wire import Book, Closed, Events, Follow, Followed, Want, Wish, header_of, key_of, write_wish
from komas.model.codec import Envelope, NoticeEnvelope
from komas.model.kinds import Kind
from komas.model.market import FeedState, FeedStatus, Health, HealthNotice
from komas.model.streams import Stream
from tests.backplane.world import BTC, ETH, TICKER, Reader, World, trades_by


async def test_a_reader_at_an_edge_gets_what_the_leader_receives(autojump_clock: trio.testing.MockClock) -> None:
    """Its interest reaches the leader, trades come back, with every digit."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        first, edge = await world.start_in_turn("auto", "edge")
        assert [living.name for living in world.leaders] == [first.name]
        with edge.hub.subscribe([BTC]) as subscription:
            items: list[Envelope] = []
            while len(items) < 50:
                items += [item for item in (await subscription.receive()).items if isinstance(item, Envelope)]
        numbers = [item.sequence or 0 for item in items]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert format(items[0].event["price"], "f") == f"{numbers[0]}.50"
        assert edge.node.mirror.known.status.state is FeedState.CONNECTED
        nursery.cancel_scope.cancel()


async def test_what_was_asked_for_outlives_the_leader(autojump_clock: trio.testing.MockClock) -> None:
    """Pins, every symbol of a kind, and whether the exchange is to be connected to at all."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        first, second = await world.start(), await world.start()
        await world.ready()
        await second.commands.pin([ETH])
        assert await second.commands.follow(Kind.TICKER) == (TICKER, Stream(Kind.TICKER, "ETHUSDT"))
        await trio.sleep(1)
        world.kill(first if first.node.is_leader else second)
        await world.start()
        await world.ready()
        await trio.sleep(10)
        (leader,) = world.leaders
        assert {ETH, TICKER} <= set(leader.markets[0].wanted)
        assert leader.markets[0].feed.status.state is FeedState.CONNECTED
        await leader.commands.disconnect()
        world.kill(leader)
        await world.ready()
        await trio.sleep(10)
        (leader,) = world.leaders
        assert leader.markets[0].feed.status.state is FeedState.DISCONNECTED
        assert set(await leader.commands.unfollow(Kind.TICKER)) == {TICKER, Stream(Kind.TICKER, "ETHUSDT")}
        await leader.commands.unpin([ETH])
        await trio.sleep(1)
        assert not leader.hub.interest.pins()
        nursery.cancel_scope.cancel()


async def test_a_stream_is_closed_when_the_last_node_that_wants_it_is_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A killed node takes nothing back; its streams end with what it has told of itself."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        leader, edge = await world.start_in_turn("auto", "edge")
        with edge.hub.subscribe([BTC]), leader.hub.subscribe([ETH]):
            await trio.sleep(5)
            assert set(leader.node.mirror.known.epochs) == {BTC, ETH}
            world.kill(edge)
            await trio.sleep(20)
            assert set(leader.node.mirror.known.epochs) == {BTC, ETH}
            await trio.sleep(60)
            assert set(leader.node.mirror.known.epochs) == {ETH}
        nursery.cancel_scope.cancel()


async def test_a_refusal_reaches_whoever_asked(autojump_clock: trio.testing.MockClock) -> None:
    """The reader hears of it, and so does who waits for the acknowledgement; it may be asked for again."""
    wrong = Stream(Kind.TRADE, "NONEUSDT")
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        _, edge = await world.start_in_turn("auto", "edge")
        for _ in range(2):
            with edge.hub.subscribe([wrong]) as subscription:
                notices: list[object] = []
                while not notices:
                    items = (await subscription.receive()).items
                    notices = [
                        item.notice for item in items if isinstance(item, NoticeEnvelope) and item.stream == wrong
                    ]
                assert isinstance(notices[0], FeedStatus)
                assert notices[0].reason == "no such symbol"
                assert str(edge.node.mirror.refused[wrong]) == "no such symbol"
                assert wrong not in edge.hub.interest
        nursery.cancel_scope.cancel()


async def test_whoever_can_answer_is_asked(autojump_clock: trio.testing.MockClock) -> None:
    """Through the leader, which tells all; nobody's answer is none."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        nodes = [await world.start() for _ in range(3)]
        await world.ready()
        nodes[2].node.answer("name", lambda body: b"mine: " + body if body == b"x" else None)
        assert await nodes[0].commands.inquire("name", b"x") == b"mine: x"
        assert await nodes[2].commands.inquire("name", b"x") == b"mine: x"
        assert await nodes[0].commands.inquire("name", b"y") is None
        for living in nodes[:2]:
            living.node.answer("own", lambda _body, name=living.name: name.encode())  # type: ignore[misc]
        assert sorted(await nodes[2].commands.inquire_all("own", b"", 2)) == [b"n1", b"n2"]
        assert len(await nodes[2].commands.inquire_all("own", b"", 3)) == 2
        nursery.cancel_scope.cancel()


async def test_nobody_leads_who_writes_what_another_cannot_read(autojump_clock: trio.testing.MockClock) -> None:
    """In a rolling deploy the new release waits until the last old one is gone."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        backplane = world.store.connect()
        old = NodeRow("old", "edge", "0.0.9", (VERSION - 1,), False, 0, "", 0.0)
        await backplane.keep(NODES, "old", write_node(old), 12.0)
        node = await world.start()
        await trio.sleep(8)
        assert not world.leaders
        assert "old (komas 0.0.9)" in str(node.node.why_not_ready())
        await trio.sleep(10)
        assert world.leaders == [node]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "wish",
    [Follow("newer", "a question", "dreams", on=True), Book("newer", "a question", "binance/btcusdt@dreams", 5, 1.0)],
)
async def test_a_wish_that_cannot_be_heard_stops_nobody(wish: Wish, autojump_clock: trio.testing.MockClock) -> None:
    """A newer release asks for kinds that the leader does not have."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        node = await world.start()
        await world.ready()
        await world.store.connect().wish(write_wish(wish))
        await trio.sleep(2)
        assert await node.commands.follow(Kind.TICKER)
        nursery.cancel_scope.cancel()


async def test_what_is_wanted_beside_what_this_release_does_not_have(autojump_clock: trio.testing.MockClock) -> None:
    """A newer node's other streams are open, at once and for as long as it says so."""
    dreams = "binance/btcusdt@dreams"
    interest = ClusterInterest()
    interest.take(Want("newer", 1, (dreams, key_of(BTC)), (dreams,)))
    assert set(interest.held("newer")) == {BTC}
    kept = msgspec.msgpack.encode((2, [dreams, key_of(BTC), key_of(ETH)]))
    interest.take_all({"newer": kept, "strange": b"nonsense"})
    assert set(interest.held("newer")) == {BTC, ETH}


async def test_an_entry_that_cannot_be_read_stops_nobody(autojump_clock: trio.testing.MockClock) -> None:
    """A newer release writes of kinds that this one does not have, and what is no entry at all is counted, too."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        node = await world.start()
        await world.ready()
        mirror = node.node.mirror
        for header in (
            b"nonsense",
            header_of([Closed("binance/btcusdt@dreams")]),
            header_of([Followed("dreams", True)]),
        ):
            assert mirror.cursor is not None
            mirror.take(Entry(EntryId(mirror.cursor.term, mirror.cursor.sequence + 1), VERSION, header))
        events = Events("binance/btcusdt@trade", "abcd", (1,), (100,), 1, 1)
        assert mirror.cursor is not None
        mirror.take(
            Entry(EntryId(mirror.cursor.term, mirror.cursor.sequence + 1), VERSION, header_of([events]), b"short")
        )
        assert mirror.unreadable == 4
        nursery.cancel_scope.cancel()


async def test_who_has_read_most_writes_a_lost_tail_again(autojump_clock: trio.testing.MockClock) -> None:
    """The leader is killed as the store loses its newest entries, and a node that has just begun tries first.

    Later, when that one ends, what was so then holds up nobody.
    """
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        leader, old = await world.start_in_turn("auto", "auto")
        with old.hub.subscribe([BTC]):
            await trio.sleep(10)
            old.backplane.cut()
            world.kill(leader)
            world.store.lose_tail(60)  # of three seconds: what the old one said of itself a second ago is beyond
            new = await world.start()
            await trio.sleep(2)
            old.backplane.mend()
            await trio.sleep(8)
            assert world.leaders == [old]
            assert new.node.terms == 0
            old.node.resign()
            await trio.sleep(0.3)
            assert world.leaders == [new]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_wiped", [True, False])
async def test_who_lacks_the_newest_entry_leaves_a_lost_log_to_who_has_it(
    autojump_clock: trio.testing.MockClock, *, is_wiped: bool
) -> None:
    """It published what it lacked anew, with other places: who went from it to another process lost what was between.

    The store, too, has forgotten how far everybody had read, or says what was so some time ago.
    """
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        leader = await world.start()
        await world.ready()
        other, late = await world.start(), await world.start()
        await world.ready()
        with other.hub.subscribe([BTC, ETH]):
            await trio.sleep(5)
            late.backplane.cut()
            await trio.sleep(0.5)
            world.store.cut()
            await trio.sleep(4)  # everybody tries to lead by now
            before, entries = dict(other.node.mirror.known.epochs), 0
            if is_wiped:
                world.store.wipe()
            else:
                world.store.lose_tail(30)
                entries = world.store.entries
            world.kill(leader)
            late.backplane.mend()
            while world.store.entries == entries:  # noqa: ASYNC110 - the store has no event for it
                await trio.sleep(0.01)
            other.backplane.mend()
            await trio.sleep(10)
            assert world.leaders == [other]
            assert late.node.terms == 0
            assert other.node.mirror.known.epochs == before
            histories = [living.hub.open_streams.by_stream[BTC].history for living in (other, late)]
            places = [
                [
                    (item.publication, item.sequence)
                    for item in history.between(history.first, history.end)
                    if isinstance(item, Envelope)
                ]
                for history in histories
            ]
            assert places[0] == places[1]
        nursery.cancel_scope.cancel()


async def test_a_store_that_forgets_again_and_again_closes_no_stream(autojump_clock: trio.testing.MockClock) -> None:
    """A new leader let the streams go before it had heard who wants them: nodes said so only every ten seconds."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        first, second = await world.start(), await world.start()
        await world.ready()
        edge = await world.start(role="edge")
        await world.ready()
        with edge.hub.subscribe([BTC]):
            await trio.sleep(2)
            epochs = dict(edge.node.mirror.known.epochs)
            world.kill(first if first.node.is_leader else second)
            await world.ready()
            for _ in range(20):
                await trio.sleep(2)
                world.store.wipe()
            await trio.sleep(5)
            assert edge.node.mirror.known.epochs == epochs
        nursery.cancel_scope.cancel()


async def test_who_led_before_another_did_begins_anew(autojump_clock: trio.testing.MockClock) -> None:
    """What waited there had places before those of what the other one had published."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        first, second = await world.start_in_turn("auto", "auto")
        reader = Reader(world, [BTC, ETH], random.Random(1))
        nursery.start_soon(reader.stay_at, second)
        await trio.sleep(2)
        first.backplane.cut()
        await trio.sleep(6)
        assert world.leaders == [first, second]
        second.node.resign()
        world.rest.answers = False
        await trio.sleep(0.5)
        first.backplane.mend()
        await trio.sleep(5)
        assert world.leaders == [first]
        assert first.node.terms == 2
        assert reader.publications == sorted(reader.publications)
        nursery.cancel_scope.cancel()


async def test_a_new_leader_knows_what_readers_were_told(autojump_clock: trio.testing.MockClock) -> None:
    """Of a stream that the old one had called stale, readers never heard that it is live again."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        leader, other = await world.start_in_turn("auto", "auto")
        with other.hub.subscribe([BTC, ETH]):
            await trio.sleep(2)
            for stream, health in ((BTC, Health.STALE), (ETH, Health.STALE), (ETH, Health.LIVE)):
                notice = HealthNotice(stream=stream.name, health=health, reason="it was said")
                leader.sinks[0].publish_health(stream, notice)
            await trio.sleep(1)
            world.kill(leader)
            await trio.sleep(10)
            assert world.leaders == [other]
            assert other.markets[0].told == {BTC: Health.STALE}
        nursery.cancel_scope.cancel()


FAULTS = (
    "kill",
    "kill leader",
    "resign leader",
    "cut",
    "cut leader",
    "cut all",
    "freeze",
    "wipe",
    "lose tail",
    "start",
)
OF_NODES = ("kill", "kill leader", "resign leader", "cut", "cut leader")  # beside any other


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("is_hot", [False, True])
async def test_no_trade_is_lost_or_doubled_whoever_dies(
    seed: int, autojump_clock: trio.testing.MockClock, *, is_hot: bool
) -> None:
    """Readers move from node to node all the while, whatever the store forgets, and whether or not nodes stand by."""
    chance = random.Random(seed)
    async with trio.open_nursery() as nursery:
        world = World(nursery, is_hot=is_hot)
        for _ in range(3):
            await world.start(delay_s=chance.uniform(0, 0.02))
        await world.ready()
        what = [[BTC], [ETH], [BTC, ETH]] * 3
        readers = [Reader(world, streams, random.Random(seed * 100 + n)) for n, streams in enumerate(what)]
        for reader in readers:
            nursery.start_soon(reader.run)
        await trio.sleep(5)
        for _ in range(8):
            await strike(world, chance)
            await trio.sleep(chance.uniform(0.5, 8.0))
        await world.ready()
        await trio.sleep(15)
        head = trades_by(trio.current_time())
        nursery.cancel_scope.cancel()
    for reader in readers:
        reader.check()
        reader.check_end(head)
        assert not reader.gaps
        assert reader.moves > 10


async def strike(world: World, chance: random.Random) -> None:
    """One fault, and its end; sometimes a node's beside it."""
    fault = chance.choice(FAULTS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(strike_with, world, fault, chance)
        if fault not in OF_NODES and chance.random() < 0.5:
            await trio.sleep(chance.uniform(0, 1))
            nursery.start_soon(strike_with, world, chance.choice(OF_NODES), chance)


async def strike_with(world: World, fault: str, chance: random.Random) -> None:
    """One fault, and its end."""
    living = chance.choice((fault.endswith("leader") and world.leaders) or list(world.nodes.values()))
    match fault.removesuffix(" leader"):
        case "start":
            await world.start()
            world.kill(living)
        case "kill":
            world.kill(living)
            await trio.sleep(chance.uniform(0, 2))
            await world.start(delay_s=chance.uniform(0, 0.02))
        case "resign":
            living.node.resign()
            await trio.sleep(1)
            world.kill(living)
            await world.start(delay_s=chance.uniform(0, 0.02))
        case "cut":
            living.backplane.cut()
            await trio.sleep(chance.uniform(0.1, 8))
            living.backplane.mend()
        case "cut all":
            world.store.cut()
            await trio.sleep(chance.uniform(0.1, 8))
            world.mend()
        case "freeze":
            world.store.freeze()
            await trio.sleep(chance.uniform(0.1, 5))
            world.store.thaw()
        case "wipe":
            world.store.wipe()
        case "lose tail":
            world.store.lose_tail(min(chance.randint(1, 30), world.store.entries // 2))
