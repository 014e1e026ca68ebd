"""One VIP socket over a scripted peer, on the deterministic clock."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing

from komas.errors import Closing, StoreUnavailable
from komas.model.signal_filter import SignalFilter
from komas.model.signals import DAY_S, SignalEnvelope, SignalInsert
from komas.settings import Settings
from komas.signals.authenticator import Authenticator
from komas.signals.connection import CHECK_S, ConnectRequest, SignalConnection
from komas.signals.database import SignalDatabase
from komas.signals.validation import NewSignal, SignalChanges
from komas.venues.core.frame_reader import Frames
from komas.web.encoding import SignalFrames
from tests.signals.harness import SignalHarness, signal_harness_over
from tests.signals.test_service import PRODUCER


@pytest.fixture(autouse=True, params=["plain", "direct"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Peer, "is_direct", request.param == "direct")


class Peer:
    """A client: what it says is scripted, what it hears is kept; it reads at its own pace."""

    is_direct = False

    def __init__(self) -> None:
        self.says, self._receive = trio.open_memory_channel[str | bytes | None](math.inf)
        self._line = trio.Lock()
        self.heard: list[dict[str, object]] = []
        self.pings = 0
        self.pause_s = 0.0
        self.answers_pings = True
        self.is_hurried = False
        self._heard_at = trio.current_time()

    async def receive(self) -> str | bytes | None:
        message = await self._receive.receive()
        self._heard_at = trio.current_time()
        return message

    async def listen(self, heard: Callable[[str | bytes | None], Awaitable[None]]) -> None:
        while True:
            await heard(await self.receive())

    async def send(self, text: str) -> None:
        async with self._line:
            await trio.sleep(self.pause_s)
            self.heard.append(json.loads(text))

    def write_nowait(self, frame: bytes) -> int:
        if self.pause_s:
            return len(frame)  # whoever reads slowly has a full socket
        frames = Frames(10**6)
        frames.feed(frame)
        self.heard += [json.loads(message) for message in frames.cut().messages]
        return 0

    async def flush(self) -> bool:
        """No rest is ever kept."""
        return False

    @property
    def writer(self) -> Peer | None:
        return self if self.is_direct else None

    async def ping(self) -> None:
        self.pings += 1
        if self.answers_pings:
            self._heard_at = trio.current_time()

    def hurry(self) -> None:
        self.is_hurried = True

    @property
    def heard_s_ago(self) -> float:
        return trio.current_time() - self._heard_at

    def types(self) -> list[object]:
        """What kinds of messages it heard, but for pings."""
        return [message["type"] for message in self.heard if message["type"] != "ping"]


class Line:
    """A conversation under way."""

    def __init__(self, harness: SignalHarness, draining: trio.Event) -> None:
        self.peer = Peer()
        self.ended_at = math.inf
        self.closing: Closing | None = None
        self._harness = harness
        self._draining = draining

    async def run(self, wish: ConnectRequest) -> None:
        """Converse; the closing is kept."""
        encoder = SignalFrames(wish.positions)
        services = self._harness.services
        self.closing = await SignalConnection(services, self.peer, wish, self._draining, encoder=encoder).run()
        self.ended_at = trio.current_time()


class Floor:
    """A harness and its conversations."""

    def __init__(self, harness: SignalHarness, nursery: trio.Nursery) -> None:
        self.harness = harness
        self.draining = trio.Event()
        self._nursery = nursery

    async def open(self, wish: ConnectRequest | None = None, *, pause_s: float = 0.0, says: Sequence[str] = ()) -> Line:
        """Begin a conversation, and let it settle; the client takes so long for each message, and has said this."""
        line = Line(self.harness, self.draining)
        line.peer.pause_s = pause_s
        for text in says:
            line.peer.says.send_nowait(text)
        self._nursery.start_soon(line.run, wish or ConnectRequest(self.harness.token()))
        await trio.testing.wait_all_tasks_blocked()
        return line

    async def publish(self, count: int = 1) -> None:
        """Publish, and let it arrive."""
        for number in range(count):
            await self.harness.services.service.publish(PRODUCER, NewSignal("mexc_dex", {"number": number}))
        await trio.testing.wait_all_tasks_blocked()

    def is_empty(self) -> bool:
        """Whether nobody is left behind."""
        counts = self.harness.services.registry.statistics()
        return (counts.users, self.harness.services.channel.statistics().subscribers) == (0, 0)


@asynccontextmanager
async def floor(database: SignalDatabase, settings: Settings | None = None) -> AsyncIterator[Floor]:
    """A desk that runs, and room for conversations."""
    async with trio.open_nursery() as nursery:
        harness = signal_harness_over(database, settings)
        nursery.start_soon(harness.services.service.run)
        nursery.start_soon(harness.services.channel.run)
        nursery.start_soon(harness.services.keeper.run)
        await harness.services.service.ready.wait()
        yield Floor(harness, nursery)
        nursery.cancel_scope.cancel()


async def test_a_vip_is_greeted_and_hears_signals(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """In the words of the user's document."""
    async with floor(sqlite) as harness:
        line = await harness.open()
        await harness.publish()
        greeting, signal = line.peer.heard
        assert greeting == {
            "type": "connected",
            "message": "Connected to CryptoTracker real-time signals",
            "user_id": 123,
            "expires_at": harness.harness.now_s() + 3600,
        }
        assert signal["signal_type"] == "mexc_dex"
        line.peer.says.send_nowait('{"type":"ping"}')
        await trio.testing.wait_all_tasks_blocked()
        assert line.peer.types() == ["connected", "new_signal", "pong"]


async def test_whoever_was_greeted_misses_nothing(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """What is published while the greeting, and answers to what was said early, are still being sent comes after."""
    async with floor(sqlite) as room:
        line = await room.open(pause_s=0.5, says=['{"type":"ping"}'] * 5)
        await trio.sleep(0.6)
        assert line.peer.types() == ["connected"]
        await room.publish()
        await trio.sleep(10)
        assert line.peer.types() == ["connected", *["pong"] * 5, "new_signal"]


async def test_since_replays_and_goes_live(autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase) -> None:
    """By the last signal, or by the last position; positions are sent to those who ask."""
    async with floor(sqlite) as harness:
        await harness.publish(3)
        await harness.harness.services.service.update(PRODUCER, 1, SignalChanges({"number": -1}))
        by_id = await harness.open(ConnectRequest(harness.harness.token(), since_id=2))
        by_position = await harness.open(ConnectRequest(harness.harness.token(), since=3, positions=True))
        await harness.publish()
        assert [m.get("signal_id", m.get("data", {}).get("id")) for m in by_id.peer.heard[1:]] == [3, 1, 4]  # type: ignore[attr-defined]
        assert [message["position"] for message in by_position.peer.heard[1:]] == [4, 5]
        assert "position" not in by_id.peer.heard[1]


@pytest.mark.parametrize("token", ["", "garbage"])
async def test_who_has_no_good_token_hears_nothing(
    token: str, autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """1008 Unauthorized."""
    async with floor(sqlite) as harness:
        line = await harness.open(ConnectRequest(token))
        assert (line.closing, line.peer.heard) == (Closing.UNAUTHORIZED, [])
        assert harness.is_empty()


async def test_who_is_no_vip_hears_nothing(autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase) -> None:
    """No VIP in the token, a lapsed one, a revoked one whatever the token says; also for a replay."""
    async with floor(sqlite) as harness:
        await harness.publish(3)
        sqlite.revoke("revoked", 0)
        sqlite.grant("lapsed", 1, harness.harness.now_s() - 2 * DAY_S)
        for user, days in (("nobody", None), ("lapsed", 30), ("revoked", 30)):
            line = await harness.open(ConnectRequest(harness.harness.token(user, vip_days=days), since_id=0))
            assert (line.closing, line.peer.heard) == (Closing.VIP_REQUIRED, [])
        sqlite.grant("granted", 1, harness.harness.now_s())
        assert (await harness.open(ConnectRequest(harness.harness.token("granted", vip_days=None)))).closing is None


async def test_a_session_ends_at_the_second_its_token_does(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """And what is published at that moment is not sent."""
    async with floor(sqlite) as harness:
        began = trio.current_time()
        line = await harness.open(ConnectRequest(harness.harness.token(ttl_s=100)))
        await trio.sleep(200)
        assert line.closing is Closing.UNAUTHORIZED
        assert 100 <= line.ended_at - began < 100.1
        assert harness.is_empty()


async def test_a_session_ends_when_vip_does(autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase) -> None:
    """Unless it is prolonged in the meantime."""
    async with floor(sqlite) as harness:
        now_s = harness.harness.now_s()
        sqlite.grant("1", 1, now_s - DAY_S + 100)
        sqlite.grant("2", 1, now_s - DAY_S + 100)
        one = await harness.open(ConnectRequest(harness.harness.token("1")))
        two = await harness.open(ConnectRequest(harness.harness.token("2")))
        await trio.sleep(50)
        await harness.harness.services.vips.grant("2", 1)
        await trio.sleep(100)
        assert one.closing is Closing.VIP_REQUIRED
        assert two.closing is None


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_revocation_closes_open_sockets(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase, *, elsewhere: bool
) -> None:
    """All of the user's, at once; within a second when another process did it; nobody else's."""
    async with floor(sqlite) as harness:
        lines = [await harness.open() for _ in range(3)]
        other = await harness.open(ConnectRequest(harness.harness.token("other")))
        began = trio.current_time()
        if elsewhere:
            sqlite.revoke("123", harness.harness.now_s())
            await trio.sleep(1)
        else:
            await harness.harness.services.vips.revoke("123")
            await trio.testing.wait_all_tasks_blocked()
        assert [line.closing for line in lines] == [Closing.VIP_REQUIRED] * 3
        assert all(line.ended_at - began < (1 if elsewhere else 0.01) for line in lines)
        assert other.closing is None


async def test_who_was_revoked_a_moment_before_a_signal_does_not_get_it(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """Though nobody had been told yet."""
    async with floor(sqlite) as harness:
        line = await harness.open()
        sqlite.revoke("123", harness.harness.now_s())
        await harness.publish()
        assert line.closing is Closing.VIP_REQUIRED
        assert line.peer.types() == ["connected"]


async def test_what_waits_for_a_slow_reader_is_not_sent_after_its_revocation(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """Nor what it was to be replayed."""
    async with floor(sqlite) as harness:
        await harness.publish(20)
        line = Line(harness.harness, harness.draining)
        line.peer.pause_s = 1.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.run, ConnectRequest(harness.harness.token(), since_id=0))
            await trio.sleep(5.5)
            await harness.harness.services.vips.revoke("123")
        assert line.closing is Closing.VIP_REQUIRED
        assert len(line.peer.heard) <= 6


async def test_a_flood_is_over_while_its_client_does_not_read(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """Its messages were taken one after another, each after a write that waited: that took half a minute."""
    async with floor(sqlite) as harness:
        await harness.publish(20)
        line = Line(harness.harness, harness.draining)
        line.peer.pause_s = 1000.0
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.run, ConnectRequest(harness.harness.token(), since_id=0))
            await trio.sleep(1)
            for _ in range(30):
                line.peer.says.send_nowait('{"type":"ping"}')
        assert line.closing is Closing.RATE_LIMITED
        assert line.ended_at == began + 1
        assert line.peer.is_hurried


async def test_answers_keep_their_order(autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase) -> None:
    """Though nobody waits for them, and the client reads slowly."""
    async with floor(sqlite) as harness:
        line = await harness.open()
        line.peer.pause_s = 1.0
        kinds = ["pong", "error"] * 5
        for kind in kinds:
            line.peer.says.send_nowait('{"type":"ping"}' if kind == "pong" else "{}")
        await trio.sleep(20)
        assert line.peer.types() == ["connected", *kinds]
        assert not line.peer.is_hurried


async def test_a_reader_too_slow_is_told_to_come_back(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """1013, and with its last position it loses nothing."""
    async with floor(sqlite, Settings(signal_mailbox=4)) as harness:
        line = await harness.open(ConnectRequest(harness.harness.token(), positions=True))
        line.peer.pause_s = 1.0
        for _ in range(5):
            await harness.publish(5)
        await trio.sleep(60)
        assert line.closing is Closing.TRY_AGAIN
        assert not line.peer.is_hurried  # it is given the time to read that
        seen = [message["position"] for message in line.peer.heard[1:]]
        last = seen[-1]
        assert isinstance(last, int)
        again = await harness.open(ConnectRequest(harness.harness.token(), since=last, positions=True))
        assert seen + [message["position"] for message in again.peer.heard[1:]] == list(range(1, 26))


async def test_who_was_cut_off_before_the_first_signal_misses_none(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """The greeting says where to come back to, to those who ask for positions; others get the user's document's."""
    async with floor(sqlite) as harness:
        await harness.publish(3)
        line = await harness.open(ConnectRequest(harness.harness.token(), positions=True))
        other = await harness.open()
        assert line.peer.heard[0]["position"] == 3
        assert other.peer.heard[0].keys() == {"type", "message", "user_id", "expires_at"}
        await harness.publish(2)
        again = await harness.open(ConnectRequest(harness.harness.token(), since=3, positions=True))
        assert [message["position"] for message in again.peer.heard] == [3, 4, 5]


async def test_a_session_is_refreshed_in_place(autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase) -> None:
    """By the same user's token alone."""
    async with floor(sqlite) as harness:
        line = await harness.open(ConnectRequest(harness.harness.token(ttl_s=60)))
        for token in (harness.harness.token("124"), "garbage", harness.harness.token(ttl_s=600)):
            line.peer.says.send_nowait(json.dumps({"type": "refresh", "token": token}))
            await trio.testing.wait_all_tasks_blocked()
        assert line.peer.types() == ["connected", "error", "error", "refreshed"]
        assert line.peer.heard[-1]["expires_at"] == harness.harness.now_s() + 600
        await trio.sleep(100)
        assert line.closing is None
        await trio.sleep(600)
        assert line.closing is Closing.UNAUTHORIZED


async def test_a_refresh_may_come_before_the_greeting(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """It is answered after it."""
    async with floor(sqlite) as harness:
        line = Line(harness.harness, harness.draining)
        line.peer.says.send_nowait(json.dumps({"type": "refresh", "token": harness.harness.token(ttl_s=7200)}))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.run, ConnectRequest(harness.harness.token()))
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert line.peer.types() == ["connected", "refreshed"]


async def test_a_refreshed_session_may_end_sooner(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """The keeper does not sleep over it."""
    async with floor(sqlite) as harness:
        line = await harness.open()
        began = trio.current_time()
        line.peer.says.send_nowait(json.dumps({"type": "refresh", "token": harness.harness.token(ttl_s=5)}))
        await trio.sleep(20)
        assert line.closing is Closing.UNAUTHORIZED
        assert 5 <= line.ended_at - began < 5.1


async def test_a_peer_that_has_gone_silent_is_dropped(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """After 90 s; one that answers the protocol's pings is not."""
    async with floor(sqlite) as harness:
        began = trio.current_time()
        silent, alive = await harness.open(), await harness.open()
        silent.peer.answers_pings = False
        await trio.sleep(1010)
        assert silent.closing is Closing.TRY_AGAIN
        assert 90 <= silent.ended_at - began < 91
        assert [message["type"] for message in silent.peer.heard] == ["connected", "ping", "ping"]
        assert alive.closing is None
        assert alive.peer.pings == 50


async def test_a_drain_ends_everybody(autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase) -> None:
    """1001."""
    async with floor(sqlite) as harness:
        lines = [await harness.open() for _ in range(5)]
        harness.draining.set()
        harness.harness.services.keeper.look_at_all()
        await trio.testing.wait_all_tasks_blocked()
        assert {line.closing for line in lines} == {Closing.SHUTTING_DOWN}
        assert harness.is_empty()


async def test_more_sockets_than_a_user_may_have_are_turned_away(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """1013; one that leaves makes room."""
    async with floor(sqlite, Settings(max_sockets_per_user=2)) as harness:
        lines = [await harness.open() for _ in range(3)]
        assert [line.closing for line in lines] == [None, None, Closing.TRY_AGAIN]
        lines[0].peer.says.send_nowait(b"binary")
        await trio.testing.wait_all_tasks_blocked()
        assert lines[0].closing is Closing.BINARY
        assert (await harness.open()).closing is None


async def test_a_bug_is_1011_and_one_sessions_alone(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """Never a normal end."""
    async with floor(sqlite) as harness:
        line, other = await harness.open(), await harness.open()

        async def fail(_text: str) -> None:
            await trio.lowlevel.checkpoint()
            raise ZeroDivisionError

        line.peer.send = fail  # type: ignore[method-assign,assignment]
        line.peer.write_nowait = len  # type: ignore[method-assign,assignment]  # nothing at once
        await harness.publish()
        assert line.closing is Closing.FAILED
        assert other.peer.types() == ["connected", "new_signal"]
        assert "a session failed" in caplog.text


async def test_a_store_that_fails_is_a_reason_to_come_back(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1013 to who cannot be checked; who is in stays in."""

    def fail(*_: object) -> None:
        raise StoreUnavailable("disk full")

    async with floor(sqlite) as harness:
        present = await harness.open()
        monkeypatch.setattr(SignalDatabase, "vip", fail)
        line = await harness.open()
        assert line.closing is Closing.TRY_AGAIN
        assert present.closing is None


async def test_a_check_that_takes_too_long_is_given_up(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five seconds from the handshake."""

    async def never(_self: Authenticator, _token: str) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(Authenticator, "authenticate", never)
    async with floor(sqlite) as harness:
        began = trio.current_time()
        line = await harness.open()
        line.peer.says.send_nowait('{"type":"ping"}')
        await trio.sleep(60)
        assert line.closing is Closing.TRY_AGAIN
        assert line.ended_at - began == CHECK_S
        assert line.peer.heard == []


async def test_a_desk_that_does_not_know_its_store_lets_nobody_in(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """It could not tell what is new."""
    harness = signal_harness_over(sqlite)
    closing = await SignalConnection(harness.services, Peer(), ConnectRequest(harness.token()), trio.Event()).run()
    assert closing is Closing.TRY_AGAIN


@pytest.mark.parametrize("steps", range(40))
async def test_a_client_that_leaves_at_any_moment_leaves_nothing_behind(
    steps: int, autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """Cancelled at every await on the way in, through the replay, and live."""
    async with floor(sqlite) as harness:
        for number in range(5):
            sqlite.publish(SignalInsert("mexc_dex", {"n": number}, "p"), 0)
        await trio.sleep(1)
        line = Line(harness.harness, harness.draining)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.run, ConnectRequest(harness.harness.token(), since_id=0))
            line.peer.says.send_nowait('{"type":"ping"}')
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert line.closing is None
        assert harness.is_empty()


async def test_the_wall_clock_may_be_set(autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase) -> None:
    """Forward past the token's end: noticed within half a minute, and before anything is sent."""
    async with floor(sqlite) as harness:
        shift_ms = [0]
        real: Callable[[], int] = harness.harness.services.clock_ms
        services = msgspec.structs.replace(harness.harness.services, clock_ms=lambda: real() + shift_ms[0])
        peer = Peer()
        closings: list[Closing] = []

        async def run(converse: Callable[[], Awaitable[Closing]]) -> None:
            closings.append(await converse())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                run, SignalConnection(services, peer, ConnectRequest(harness.harness.token()), harness.draining).run
            )
            await trio.testing.wait_all_tasks_blocked()
            shift_ms[0] = 4_000_000
            await harness.publish()
        assert closings == [Closing.UNAUTHORIZED]
        assert peer.types() == ["connected"]


async def test_who_is_ahead_of_this_process_hears_nothing_twice(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """Another process over the same store has told more than is told here yet."""
    async with floor(sqlite) as harness:
        await harness.publish(2)
        harness.harness.services.channel.position = 0  # what this process has told
        line = await harness.open(ConnectRequest(harness.harness.token(), since=2, positions=True))
        for event in sqlite.events_after(0, 2, 10):
            harness.harness.services.channel.publish(SignalEnvelope(event))
        await harness.publish()
        assert [message["position"] for message in line.peer.heard[1:]] == [3]


BTC = SignalFilter(coins=frozenset({"btc"}))


async def test_a_filter_over_a_break_loses_and_doubles_nothing(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """Live, in a replay, and without the filter afterwards: positions are the same for everybody."""
    async with floor(sqlite) as room:
        service = room.harness.services.service

        async def publish(*coins: str) -> None:
            for coin in coins:
                await service.publish(PRODUCER, NewSignal("mexc_dex", {"coin_name": coin}))
            await trio.testing.wait_all_tasks_blocked()

        line = await room.open(ConnectRequest(room.harness.token(), positions=True, wanted=BTC))
        await publish("ETH", "BTC", "ETH")  # 1 2 3
        assert [message["position"] for message in line.peer.heard] == [0, 2]
        room.draining.set()
        room.harness.services.keeper.look_at_all()
        await trio.sleep(1)
        room.draining = trio.Event()
        await publish("ETH", "btc")  # 4 5
        await service.update(PRODUCER, 2, SignalChanges({"coin_name": "NB"}))  # 6
        await service.update(PRODUCER, 2, SignalChanges({"spread": 1}))  # 7
        await service.update(PRODUCER, 1, SignalChanges({"coin_name": " Btc"}))  # 8
        request = ConnectRequest(room.harness.token(), since=2, positions=True, wanted=BTC)
        line = await room.open(request)
        await publish("ETH", "BTC")  # 9 10
        assert [message["position"] for message in line.peer.heard] == [2, 5, 6, 8, 10]
        assert line.peer.heard[2]["data"] == {"coin_name": "NB"}  # or a signal of another coin would be kept
        everything = await room.open(ConnectRequest(room.harness.token(), since=2))
        assert len(everything.peer.heard) == 1 + 8


async def test_a_quiet_filter_is_told_how_far_it_has_all(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """With its pings: it came back from its last signal, of weeks ago. Never further than what it was sent."""
    async with floor(sqlite) as room:
        token = room.harness.token()
        quiet = await room.open(ConnectRequest(token, positions=True, wanted=BTC))
        others = [
            await room.open(ConnectRequest(token, positions=True)),  # which has every position
            await room.open(ConnectRequest(token, wanted=BTC)),  # which did not ask
        ]
        slow = await room.open(ConnectRequest(token, positions=True, wanted=BTC), pause_s=20)
        await trio.sleep(25)  # its greeting is sent
        await room.publish(5)
        await room.harness.services.service.publish(PRODUCER, NewSignal("mexc_dex", {"coin_name": "BTC"}))
        await room.publish(2)
        await trio.sleep(25)

        def pings(line: Line) -> list[object]:
            return [message.get("position") for message in line.peer.heard if message["type"] == "ping"]

        assert pings(quiet) == [8]
        assert [pings(line) for line in others] == [[None], [None]]
        await trio.sleep(100)
        seen = 0
        for message in slow.peer.heard:
            position = message.get("position", 0)
            assert isinstance(position, int)
            assert message["type"] != "ping" or position <= 5 or seen == 6
            seen = position if message["type"] == "new_signal" else seen
        assert seen == 6
        assert pings(slow)[-1] == 8
