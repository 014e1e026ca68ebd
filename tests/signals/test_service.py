"""The signal service: committed first, told once and in order, whoever committed it."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from komas.errors import Forbidden, SlowConsumer, StoreUnavailable
from komas.hub.channel import SignalSubscription
from komas.model.signal_filter import EVERYTHING, SignalFilter
from komas.model.signals import Counters, Principal, SignalEvent, SignalInsert, Vip
from komas.signals.database import SignalDatabase
from komas.signals.database_threads import PAGE_BYTES
from komas.signals.demo import publish_demo_signals
from komas.signals.notification import POSITION, SESSION, VIP, Notification
from komas.signals.service import LISTENING_EVERY_S, WATCH_EVERY_S
from komas.signals.tokens import SCOPE_PUBLISH
from komas.signals.validation import NewSignal, SignalChanges
from tests.signals.harness import SignalHarness, signal_harness_over

PRODUCER = Principal("p", 0, scopes=frozenset({SCOPE_PUBLISH}))


def _wording(number: int) -> NewSignal:
    return NewSignal("mexc_dex", {"number": number})


@asynccontextmanager
async def _house(database: SignalDatabase) -> AsyncIterator[SignalHarness]:
    harness = signal_harness_over(database)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.services.service.run)
        await harness.services.service.ready.wait()
        yield harness
        nursery.cancel_scope.cancel()


async def _positions(place: SignalSubscription, count: int) -> list[int]:
    seen: list[int] = []
    with trio.move_on_after(60):
        while len(seen) < count:
            seen += [envelope.event.position for envelope in await place.receive()]
    return seen


async def test_who_may_not_publish_is_told_and_nothing_is_committed(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """By scope."""
    async with _house(sqlite) as harness:
        for call in (
            lambda: harness.services.service.publish(Principal("p", 0), _wording(1)),
            lambda: harness.services.service.update(
                Principal("p", 0, scopes=frozenset({"signals"})), 1, SignalChanges({"a": 1})
            ),
        ):
            with pytest.raises(Forbidden, match="signals:publish"):
                await call()
        assert sqlite.counters().position == 0


async def test_many_at_once_are_told_in_the_order_of_their_commits(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """Each once, from this process and from others."""
    async with _house(sqlite) as harness:
        with harness.services.channel.subscribe(1000) as place:
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(harness.services.service.publish, PRODUCER, _wording(number))
                    if number % 5 == 0:
                        sqlite.publish(SignalInsert("mexc_dex", {"elsewhere": number}, "q"), 0)
            assert await _positions(place, 60) == list(range(1, 61))
            assert harness.services.channel.statistics().published == 60


async def test_what_another_process_committed_is_told_within_a_second(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """More than a page of it."""
    async with _house(sqlite) as harness:
        with harness.services.channel.subscribe(1000) as place:
            for number in range(300):
                sqlite.publish(SignalInsert("mexc_dex", {"elsewhere": number}, "q"), 0)
            began = trio.current_time()
            assert await _positions(place, 300) == list(range(1, 301))
            assert trio.current_time() - began < 1


async def test_what_is_notified_is_told_at_once(autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase) -> None:
    """Commits, and revocations; the next look would be seconds away."""
    async with _house(sqlite) as harness:
        service, heard = harness.services.service, list[Vip]()
        service.listening()
        with harness.services.channel.subscribe(10) as place, harness.services.registry.user("123", heard.append):
            await trio.sleep(1)
            began = trio.current_time()
            sqlite.publish(SignalInsert("mexc_dex", {"elsewhere": 1}, "q"), 0)
            service.notified(Notification(POSITION, "1"))
            assert await _positions(place, 1) == [1]
            sqlite.revoke("123", 0)
            service.notified(Notification(VIP, "1"))
            await trio.testing.wait_all_tasks_blocked()
            assert [vip.revoked for vip in heard] == [True]
            assert trio.current_time() - began < 0.1


async def test_the_store_is_looked_at_less_often_while_notifications_come(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not before they do, nor when they have ended, nor when something was found that nobody notified of."""
    looks = list[float]()
    read = sqlite.counters

    def counters() -> Counters:
        looks.append(trio.current_time())
        return read()

    monkeypatch.setattr(sqlite, "counters", counters)

    async def pace() -> float:
        await trio.sleep(LISTENING_EVERY_S)
        looks.clear()
        await trio.sleep(20 * LISTENING_EVERY_S)
        return 20 * LISTENING_EVERY_S / len(looks)

    async with _house(sqlite) as harness:
        service = harness.services.service
        assert await pace() == pytest.approx(WATCH_EVERY_S, rel=0.1)
        service.listening()
        assert await pace() == pytest.approx(LISTENING_EVERY_S, rel=0.1)
        sqlite.publish(SignalInsert("mexc_dex", {"by a release of before": 1}, "q"), 0)
        assert await pace() == pytest.approx(WATCH_EVERY_S, rel=0.1)
        sqlite.publish(SignalInsert("mexc_dex", {"by one of now": 1}, "q"), 0)
        service.notified(Notification(POSITION, "2"))
        assert await pace() == pytest.approx(LISTENING_EVERY_S, rel=0.1)
        began = trio.current_time()
        service.not_listening()
        await trio.testing.wait_all_tasks_blocked()
        assert looks[-1] == began
        service.notified(Notification(POSITION, "2"))  # the last one of a connection that is no more
        assert await pace() == pytest.approx(WATCH_EVERY_S, rel=0.1)


async def test_a_notification_of_what_is_known_costs_no_look(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of nearly every signal that this process published itself; one that makes no sense costs one."""
    async with _house(sqlite) as harness:
        service = harness.services.service
        service.listening()
        await service.publish(PRODUCER, _wording(1))
        await trio.sleep(0.5)
        looks = 0
        read = sqlite.counters

        def counters() -> Counters:
            nonlocal looks
            looks += 1
            return read()

        monkeypatch.setattr(sqlite, "counters", counters)
        for notification, cost in ((Notification(POSITION, "1"), 0), (Notification("later", "release"), 1)):
            looks = 0
            service.notified(notification)
            await trio.testing.wait_all_tasks_blocked()
            assert looks == cost


async def test_our_own_commit_is_told_by_who_made_it(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its notification is quicker than its answer: each signal cost a look, for which the next one waited."""
    looks = 0
    read, write = sqlite.counters, sqlite.publish

    def counters() -> Counters:
        nonlocal looks
        looks += 1
        return read()

    def publish(draft: SignalInsert, now_ms: int) -> tuple[SignalEvent, Counters]:
        done = write(draft, now_ms)
        service.notified(Notification(POSITION, str(done[0].position)))
        return done

    async with _house(sqlite) as harness:
        service = harness.services.service
        service.listening()
        await trio.testing.wait_all_tasks_blocked()
        monkeypatch.setattr(sqlite, "counters", counters)
        monkeypatch.setattr(sqlite, "publish", publish)
        with harness.services.channel.subscribe(100) as place:
            for number in range(10):
                await service.publish(PRODUCER, _wording(number))
            assert looks == 0
            with trio.CancelScope() as scope:  # nobody tells it

                def leave(database: SignalDatabase) -> object:
                    scope.cancel()
                    return database.publish(SignalInsert("mexc_dex", {"a": 1}, "p"), 0)

                await harness.store.write(leave)
                await trio.lowlevel.checkpoint()
            began = trio.current_time()
            assert await _positions(place, 11) == list(range(1, 12))
            assert trio.current_time() - began < 0.1


async def test_a_commit_of_others_is_told_beside_one_of_ours_that_takes_long(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours waits for the database; who was revoked elsewhere does not stay until it is over."""
    async with _house(sqlite) as harness:
        service = harness.services.service
        service.listening()
        await trio.sleep(0.1)
        release, write = trio.Event(), harness.store.write

        async def waits(change: Callable[[SignalDatabase], object]) -> object:
            await release.wait()
            return await write(change)

        monkeypatch.setattr(harness.store, "write", waits)
        heard = list[Vip]()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.publish, PRODUCER, _wording(1))
            with harness.services.registry.user("123", heard.append):
                await trio.testing.wait_all_tasks_blocked()
                sqlite.revoke("123", 0)
                service.notified(Notification(VIP, "1"))
                await trio.sleep(0.1)
                assert [vip.revoked for vip in heard] == [True]
            release.set()


async def test_an_order_to_disconnect_is_obeyed_where_the_socket_is(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """By its name, which no other process has; a name that is nobody's is no error."""
    disconnected = list[str]()

    class Session:
        user_id, address, since_ms, behind = 1, "", 0, 0

        def disconnect(self) -> None:
            disconnected.append("it")

    services = signal_harness_over(sqlite).services
    name = services.registry.show(Session())
    assert list(services.registry.sessions) == [name]
    for each in ("0a-1", name, "", "nonsense"):
        services.heard(Notification(SESSION, each))
    assert await services.disconnect(name) is True
    services.registry.hide(name)
    assert disconnected == ["it", "it"]


async def test_who_is_to_be_disconnected_elsewhere_is_asked_for_there(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where anything can be asked; not for what was never a socket's name, nor for one of ours that has left."""
    asked = list[Notification]()
    monkeypatch.setattr(sqlite, "notify", asked.append)
    services = signal_harness_over(sqlite).services
    assert await services.disconnect("0a-1") is False  # a file notifies nobody
    listens = msgspec.structs.replace(services, listener=object())
    assert await listens.disconnect("0a-1") is None
    for name in ("0-1", "nonsense", "0a-1\0"):
        assert await listens.disconnect(name) is False
    assert asked == [Notification(SESSION, "0a-1")]


async def test_a_publisher_that_left_is_told_for(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """Cancelled between the commit and the telling."""
    async with _house(sqlite) as harness:
        with harness.services.channel.subscribe(10) as place:
            with trio.CancelScope() as scope:

                def publish(database: SignalDatabase) -> object:
                    scope.cancel()
                    return database.publish(SignalInsert("mexc_dex", {"a": 1}, "p"), 0)

                await harness.store.write(publish)
                await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught
            assert await _positions(place, 1) == [1]


async def test_history_is_not_told_again_at_the_start(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """Only what comes after; also when the first thing that the signal service sees is its own publication."""
    sqlite.open()
    for number in range(5):
        sqlite.publish(SignalInsert("mexc_dex", {"old": number}, "q"), 0)
    harness = signal_harness_over(sqlite)
    with harness.services.channel.subscribe(10) as place:
        event = await harness.services.service.publish(PRODUCER, _wording(1))
        assert event.position == 6
        assert await _positions(place, 1) == [6]


async def test_an_update_that_changes_nothing_is_not_told(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """And a retry with a key is not told twice."""
    async with _house(sqlite) as harness:
        with harness.services.channel.subscribe(10) as place:
            for _ in range(3):
                event = await harness.services.service.publish(PRODUCER, _wording(1), "key")
                assert event.signal_id == 1
            for _ in range(3):
                signal = await harness.services.service.update(PRODUCER, 1, SignalChanges({"number": 2}))
                assert signal is not None
            assert await harness.services.service.update(PRODUCER, 99, SignalChanges({"number": 2})) is None
            assert await _positions(place, 3) == [1, 2]


async def test_who_was_revoked_before_a_signal_is_told_before_it(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """By another process, a moment earlier."""
    async with _house(sqlite) as harness:
        heard: list[object] = []

        def changed(vip: Vip) -> None:
            heard.append((vip.revoked, harness.services.channel.position))

        with harness.services.registry.user("123", changed):
            sqlite.revoke("123", 0)
            await harness.services.service.publish(PRODUCER, _wording(1))
            assert heard == [(True, 0)]
            await trio.sleep(5)
            assert len(heard) == 1
            await harness.services.vips.revoke("123")
            assert heard[1:] == [(True, 1)]


async def test_the_store_may_fail_for_a_while(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Publishing says so, watching goes on, and then everything is told."""

    def fail(*_: object) -> None:
        raise StoreUnavailable("disk full")

    async with _house(sqlite) as harness:
        with harness.services.channel.subscribe(10) as place:
            with monkeypatch.context() as broken:
                for name in ("counters", "publish", "events_after"):
                    broken.setattr(SignalDatabase, name, fail)
                with pytest.raises(StoreUnavailable):
                    await harness.services.service.publish(PRODUCER, _wording(1))
                await trio.sleep(100)
            sqlite.publish(SignalInsert("mexc_dex", {"elsewhere": 1}, "q"), 0)
            assert await _positions(place, 1) == [1]


def _execute(folder: Path, *statements: str) -> None:
    """Change the ledger's file behind its back, in one transaction."""
    with closing(sqlite3.connect(folder / "komas.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


async def test_a_store_that_went_back_dismisses_everybody(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A backup was put in its place: what is told goes on from there, and so do revocations."""
    async with _house(sqlite) as harness:
        for number in range(10):
            await harness.services.service.publish(PRODUCER, _wording(number))
        await harness.services.vips.grant("123", 1)
        heard: list[Vip] = []
        with harness.services.channel.subscribe(10) as place, harness.services.registry.user("123", heard.append):
            await trio.sleep(1)
            _execute(tmp_path, "DELETE FROM events WHERE position > 4", "UPDATE counters SET value = 4")
            await trio.sleep(1)
            with pytest.raises(SlowConsumer):
                await place.receive()
        assert "the database went back" in caplog.text
        assert heard[-1].user_id == "123"
        with harness.services.channel.subscribe(10) as place:
            _execute(tmp_path, "UPDATE counters SET value = 10 WHERE name = 'signal'")
            await harness.services.service.publish(PRODUCER, _wording(11))
            assert await _positions(place, 1) == [5]


async def test_every_vip_is_told_page_by_page(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a store that went back, all are told: not in one piece, and none is left out."""
    sqlite.open()
    for number in range(10):
        sqlite.grant(str(number), 1, 0)
    asked = list[int]()
    read = sqlite.vips

    def vips(after: int) -> list[Vip]:
        asked.append(after)
        return read(after, limit=4)

    monkeypatch.setattr(sqlite, "vips", vips)
    harness = signal_harness_over(sqlite)
    heard = list[str]()
    with ExitStack() as users:
        for number in range(10):
            users.enter_context(
                harness.services.registry.user(str(number), lambda vip: heard.append(vip.user_id))  # each its own
            )
        await harness.services.vips.catch_up(10)
        await harness.services.vips.catch_up(10)
        assert heard == [str(number) for number in range(10)]
        assert asked == [0, 4, 8]
        await harness.services.vips.catch_up(11)  # the row of that change was removed by hand
        assert asked == [0, 4, 8, 10]


async def test_a_replay_keeps_little_for_who_does_not_read(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """128 signals of 16 KB were 2 MB for each socket; and all of them come, once it reads."""
    sqlite.open()
    for number in range(100):
        sqlite.publish(SignalInsert("mexc_dex", {"n": number, "filling": "x" * 16_000}, "p"), 0)
    store = signal_harness_over(sqlite).store
    seen = list[int]()
    while page := await store.events_after(seen[-1] if seen else 0, 100):
        assert sum(len(bytes(event.data)) for event in page) <= PAGE_BYTES
        seen += [event.position for event in page]
    assert seen == list(range(1, 101))


async def test_commits_that_are_missing_are_no_reason_to_spin(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase, tmp_path: Path
) -> None:
    """Somebody removed rows: said, and gone on after them."""
    async with _house(sqlite) as harness:
        await harness.services.service.publish(PRODUCER, _wording(1))
        _execute(tmp_path, "UPDATE counters SET value = 3 WHERE name = 'position'")
        calls = 0
        read = sqlite.events_after

        def count(
            position: int, upto: int, limit: int, most_bytes: int = 0, *, wanted: SignalFilter = EVERYTHING
        ) -> list[SignalEvent]:
            nonlocal calls
            calls += 1
            return read(position, upto, limit, most_bytes, wanted=wanted)

        sqlite.events_after = count  # type: ignore[method-assign]
        await trio.sleep(10)
        assert calls == 1
        assert harness.services.channel.position == 3


async def test_simulated_signals_are_marked_and_come_within_a_minute(
    autojump_clock: trio.testing.MockClock, sqlite: SignalDatabase
) -> None:
    """With plausible numbers, and an update now and then."""
    async with _house(sqlite) as harness:
        with harness.services.channel.subscribe(1000) as place, trio.move_on_after(600):
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    publish_demo_signals, harness.services.service, ("mexc_dex", "funding_rate"), random.Random(1)
                )
                await _positions(place, 1)
                assert trio.current_time() - began < 60
                await trio.sleep_forever()
        signals = sqlite.signals_after(0, 1000)
        assert 5 < len(signals) < 60
        assert all(b'"simulated":true' in bytes(signal.data) for signal in signals)
        assert {signal.signal_type for signal in signals} == {"mexc_dex", "funding_rate"}
        assert Decimal(0) < Decimal(sqlite.counters().position) <= 2 * len(signals)
