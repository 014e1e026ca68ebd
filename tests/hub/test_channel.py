"""A topic: who falls behind is disconnected at once, and comes back with a position."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

import msgspec
import pytest
import trio
import trio.testing

from komas.errors import SlowConsumer
from komas.hub.channel import SignalChannel, SignalSubscription
from komas.model.signal_filter import EVERYTHING, SignalFilter
from komas.model.signals import SignalEnvelope, SignalEvent


def _envelope(position: int) -> SignalEnvelope:
    return SignalEnvelope(SignalEvent(position, position, "mexc_dex", is_new=True, data=msgspec.Raw(b"{}")))


async def test_one_wake_up_carries_everything(autojump_clock: trio.testing.MockClock) -> None:
    """What came while the subscriber slept is one batch, the same objects for all."""
    topic = SignalChannel()
    with topic.subscribe(8) as one, topic.subscribe(8) as other:
        for position in (1, 2, 3):
            topic.publish(_envelope(position))
        taken = await one.receive()
        assert [envelope.event.position for envelope in taken] == [1, 2, 3]
        assert await other.receive() == taken
        with trio.move_on_after(60) as scope:
            await one.receive()
        assert scope.cancelled_caught
    assert topic.position == 3


async def test_who_falls_behind_is_dismissed_and_nobody_else_is() -> None:
    """What it has not taken is not lost: the store has it."""
    topic = SignalChannel()
    with topic.subscribe(2) as slow, topic.subscribe(8) as quick:
        for position in range(1, 6):
            topic.publish(_envelope(position))
        topic.publish(_envelope(6))
        with pytest.raises(SlowConsumer):
            await slow.receive()
        assert len(await quick.receive()) == 6
    assert topic.statistics().disconnected == 1
    assert topic.statistics().subscribers == 0


async def test_a_dismissal_wakes_a_listener_that_waits() -> None:
    """Not only one that comes back by itself."""
    topic = SignalChannel()
    with topic.subscribe(1) as place:
        async with trio.open_nursery() as nursery:

            async def subscribe() -> None:
                with trio.fail_after(1), pytest.raises(SlowConsumer):
                    await place.receive()

            nursery.start_soon(subscribe)
            await trio.testing.wait_all_tasks_blocked()
            topic.publish(_envelope(1))
            topic.publish(_envelope(2))


class _Frames:
    """A view, and a socket that takes everything."""

    heartbeat = b""

    def __init__(self) -> None:
        self.got = b""

    def write_nowait(self, frame: bytes) -> int:
        self.got += frame
        return 0

    async def flush(self) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    @staticmethod
    def new_encoding() -> Callable[[list[SignalEnvelope]], bytes]:
        return lambda envelopes: b"".join(envelope.text(positions=True).encode() for envelope in envelopes)


async def test_after_a_reset_nothing_is_written_to_who_was_there() -> None:
    """What it has seen is not what there is: it must come back, and hear nothing before."""
    for _ in range(20):
        topic, socket = SignalChannel(), _Frames()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(topic.run)
            with topic.subscribe_writer(8, socket, socket) as place:

                async def subscribe(place: SignalSubscription = place) -> None:
                    with pytest.raises(SlowConsumer):
                        await place.receive()

                nursery.start_soon(subscribe)
                await trio.testing.wait_all_tasks_blocked()
                topic.publish(_envelope(1))
                await trio.testing.wait_all_tasks_blocked()
                topic.publish(_envelope(2))
                topic.reset(9)
                topic.publish(_envelope(10))
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert socket.got == _envelope(1).text(positions=True).encode()


def test_an_envelope_is_encoded_once_for_each_form() -> None:
    """As the user's document has it; the position is there for those who asked."""
    born = SignalEnvelope(SignalEvent(7, 1, "mexc_dex", is_new=True, data=msgspec.Raw(b'{"id":1,"spread":8.840}')))
    plain = '{"type":"new_signal","signal_type":"mexc_dex","data":{"id":1,"spread":8.840}}'
    assert born.text(positions=False) == plain
    assert born.text(positions=True) == f'{plain[:-1]},"position":7}}'
    assert born.text(positions=False) is born.text(positions=False)
    changed = SignalEnvelope(SignalEvent(8, 1, "mexc_dex", is_new=False, data=msgspec.Raw(b'{"spread":9.10}')))
    text = '{"type":"signal_update","signal_type":"mexc_dex","signal_id":1,"data":{"spread":9.10}}'
    assert changed.text(positions=False) == text


BTC = SignalFilter(coins=frozenset({"btc"}))


def _coin(position: int, *coins: str) -> SignalEnvelope:
    return SignalEnvelope(
        SignalEvent(position, position, "mexc_dex", is_new=True, data=msgspec.Raw(b"{}"), coins=coins)
    )


async def test_what_is_not_wanted_takes_no_room(autojump_clock: trio.testing.MockClock) -> None:
    """A slow reader of one coin is not disconnected for the signals of others; the position rises all the same."""
    topic = SignalChannel()
    with topic.subscribe(1, BTC) as one:
        for position in range(1, 100):
            topic.publish(_coin(position, "eth"))
        topic.publish(_coin(100, "btc"))
        assert (topic.position, one.waiting, one.is_disconnected) == (100, 1, False)
        assert [envelope.event.position for envelope in await one.receive()] == [100]


async def test_equal_filters_share_one_encoding() -> None:
    """Readers of one coin cost one; another filter is another group, or a reader would get what it left out."""
    topic, encoded = SignalChannel(), list[int]()

    class Encoding(_Frames):
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Encoding)

        @staticmethod
        def new_encoding() -> Callable[[list[SignalEnvelope]], bytes]:
            def encode(envelopes: list[SignalEnvelope]) -> bytes:
                encoded.append(len(envelopes))
                return b"".join(b"%d " % envelope.event.position for envelope in envelopes)

            return encode

    filters = [BTC, SignalFilter(coins=frozenset(["btc"])), SignalFilter(coins=frozenset({"eth"})), EVERYTHING] * 3
    sockets = [Encoding() for _ in filters]
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        nursery.start_soon(topic.run)
        for socket, wanted in zip(sockets, filters, strict=True):
            place = stack.enter_context(topic.subscribe_writer(8, socket, socket, wanted))
            nursery.start_soon(place.receive)
        await trio.testing.wait_all_tasks_blocked()
        topic.publish(_coin(1, "btc"))
        topic.publish(_coin(2, "eth"))
        topic.publish(_coin(3))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [socket.got for socket in sockets] == [b"1 ", b"1 ", b"2 ", b"1 2 3 "] * 3
    assert sorted(encoded) == [1, 1, 3]


async def test_what_a_full_socket_has_not_taken_is_owed(autojump_clock: trio.testing.MockClock) -> None:
    """Its reader was told a position beyond what it had."""
    topic, socket = SignalChannel(), _Frames()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(topic.run)
        with topic.subscribe_writer(8, socket, socket, BTC) as place:
            nursery.start_soon(place.receive)
            await trio.testing.wait_all_tasks_blocked()
            assert not place.is_owed
            topic.publish(_coin(1, "btc"))
            assert place.is_owed  # the group has it, the socket has not
            await trio.testing.wait_all_tasks_blocked()
            assert not place.is_owed
            nursery.cancel_scope.cancel()
