"""The desk: committed first, told once and in order, whoever committed it."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from decimal import Decimal
from pathlib import Path

import pytest
import trio
import trio.testing

from komas.errors import Dismissed, Forbidden, StoreUnavailable
from komas.hub.channel import SignalListener
from komas.model.signals import Draft, Principal, SignalEvent, Vip
from komas.signals.database import Ledger
from komas.signals.demo import imagine_signals
from komas.signals.tokens import SCOPE_PUBLISH
from komas.signals.validation import Changes, Wording
from tests.signals.house import SignalHouse, signal_house_over

PRODUCER = Principal("p", 0, scopes=frozenset({SCOPE_PUBLISH}))


def _wording(number: int) -> Wording:
    return Wording("mexc_dex", {"number": number})


@asynccontextmanager
async def _house(ledger: Ledger) -> AsyncIterator[SignalHouse]:
    house = signal_house_over(ledger)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.rooms.desk.run)
        await house.rooms.desk.ready.wait()
        yield house
        nursery.cancel_scope.cancel()


async def _positions(place: SignalListener, count: int) -> list[int]:
    seen: list[int] = []
    with trio.move_on_after(60):
        while len(seen) < count:
            seen += [envelope.event.position for envelope in await place.take()]
    return seen


async def test_who_may_not_publish_is_told_and_nothing_is_committed(
    autojump_clock: trio.testing.MockClock, sqlite: Ledger
) -> None:
    """By scope."""
    async with _house(sqlite) as house:
        for call in (
            lambda: house.rooms.desk.publish(Principal("p", 0), _wording(1)),
            lambda: house.rooms.desk.update(Principal("p", 0, scopes=frozenset({"signals"})), 1, Changes({"a": 1})),
        ):
            with pytest.raises(Forbidden, match="signals:publish"):
                await call()
        assert sqlite.counters().position == 0


async def test_many_at_once_are_told_in_the_order_of_their_commits(
    autojump_clock: trio.testing.MockClock, sqlite: Ledger
) -> None:
    """Each once, from this process and from others."""
    async with _house(sqlite) as house:
        with house.rooms.topic.listen(1000) as place:
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(house.rooms.desk.publish, PRODUCER, _wording(number))
                    if number % 5 == 0:
                        sqlite.publish(Draft("mexc_dex", {"elsewhere": number}, "q"), 0)
            assert await _positions(place, 60) == list(range(1, 61))
            assert house.rooms.topic.statistics().published == 60


async def test_what_another_process_committed_is_told_within_a_second(
    autojump_clock: trio.testing.MockClock, sqlite: Ledger
) -> None:
    """More than a page of it."""
    async with _house(sqlite) as house:
        with house.rooms.topic.listen(1000) as place:
            for number in range(300):
                sqlite.publish(Draft("mexc_dex", {"elsewhere": number}, "q"), 0)
            began = trio.current_time()
            assert await _positions(place, 300) == list(range(1, 301))
            assert trio.current_time() - began < 1


async def test_a_publisher_that_left_is_told_for(autojump_clock: trio.testing.MockClock, sqlite: Ledger) -> None:
    """Cancelled between the commit and the telling."""
    async with _house(sqlite) as house:
        with house.rooms.topic.listen(10) as place:
            with trio.CancelScope() as scope:

                def publish(ledger: Ledger) -> object:
                    scope.cancel()
                    return ledger.publish(Draft("mexc_dex", {"a": 1}, "p"), 0)

                await house.store.write(publish)
                await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught
            assert await _positions(place, 1) == [1]


async def test_history_is_not_told_again_at_the_start(autojump_clock: trio.testing.MockClock, sqlite: Ledger) -> None:
    """Only what comes after; also when the first thing that the desk sees is its own publication."""
    sqlite.open()
    for number in range(5):
        sqlite.publish(Draft("mexc_dex", {"old": number}, "q"), 0)
    house = signal_house_over(sqlite)
    with house.rooms.topic.listen(10) as place:
        event = await house.rooms.desk.publish(PRODUCER, _wording(1))
        assert event.position == 6
        assert await _positions(place, 1) == [6]


async def test_an_update_that_changes_nothing_is_not_told(
    autojump_clock: trio.testing.MockClock, sqlite: Ledger
) -> None:
    """And a retry with a key is not told twice."""
    async with _house(sqlite) as house:
        with house.rooms.topic.listen(10) as place:
            for _ in range(3):
                event = await house.rooms.desk.publish(PRODUCER, _wording(1), "key")
                assert event.signal_id == 1
            for _ in range(3):
                signal = await house.rooms.desk.update(PRODUCER, 1, Changes({"number": 2}))
                assert signal is not None
            assert await house.rooms.desk.update(PRODUCER, 99, Changes({"number": 2})) is None
            assert await _positions(place, 3) == [1, 2]


async def test_who_was_revoked_before_a_signal_is_told_before_it(
    autojump_clock: trio.testing.MockClock, sqlite: Ledger
) -> None:
    """By another process, a moment earlier."""
    async with _house(sqlite) as house:
        heard: list[object] = []

        def changed(vip: Vip) -> None:
            heard.append((vip.revoked, house.rooms.topic.position))

        with house.rooms.register.user("123", changed):
            sqlite.revoke("123", 0)
            await house.rooms.desk.publish(PRODUCER, _wording(1))
            assert heard == [(True, 0)]
            await trio.sleep(5)
            assert len(heard) == 1
            await house.rooms.vips.revoke("123")
            assert heard[1:] == [(True, 1)]


async def test_the_store_may_fail_for_a_while(
    autojump_clock: trio.testing.MockClock, sqlite: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Publishing says so, watching goes on, and then everything is told."""

    def fail(*_: object) -> None:
        raise StoreUnavailable("disk full")

    async with _house(sqlite) as house:
        with house.rooms.topic.listen(10) as place:
            with monkeypatch.context() as broken:
                for name in ("counters", "publish", "events_after"):
                    broken.setattr(Ledger, name, fail)
                with pytest.raises(StoreUnavailable):
                    await house.rooms.desk.publish(PRODUCER, _wording(1))
                await trio.sleep(100)
            sqlite.publish(Draft("mexc_dex", {"elsewhere": 1}, "q"), 0)
            assert await _positions(place, 1) == [1]


def _execute(folder: Path, *statements: str) -> None:
    """Change the ledger's file behind its back, in one transaction."""
    with closing(sqlite3.connect(folder / "komas.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


async def test_a_store_that_went_back_dismisses_everybody(
    autojump_clock: trio.testing.MockClock, sqlite: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A backup was put in its place: what is told goes on from there, and so do revocations."""
    async with _house(sqlite) as house:
        for number in range(10):
            await house.rooms.desk.publish(PRODUCER, _wording(number))
        await house.rooms.vips.grant("123", 1)
        heard: list[Vip] = []
        with house.rooms.topic.listen(10) as place, house.rooms.register.user("123", heard.append):
            await trio.sleep(1)
            _execute(tmp_path, "DELETE FROM events WHERE position > 4", "UPDATE counters SET value = 4")
            await trio.sleep(1)
            with pytest.raises(Dismissed):
                await place.take()
        assert "the store went back" in caplog.text
        assert heard[-1].user_id == "123"
        with house.rooms.topic.listen(10) as place:
            _execute(tmp_path, "UPDATE counters SET value = 10 WHERE name = 'signal'")
            await house.rooms.desk.publish(PRODUCER, _wording(11))
            assert await _positions(place, 1) == [5]


async def test_commits_that_are_missing_are_no_reason_to_spin(
    autojump_clock: trio.testing.MockClock, sqlite: Ledger, tmp_path: Path
) -> None:
    """Somebody removed rows: said, and gone on after them."""
    async with _house(sqlite) as house:
        await house.rooms.desk.publish(PRODUCER, _wording(1))
        _execute(tmp_path, "UPDATE counters SET value = 3 WHERE name = 'position'")
        calls = 0
        read = sqlite.events_after

        def count(position: int, upto: int, limit: int) -> list[SignalEvent]:
            nonlocal calls
            calls += 1
            return read(position, upto, limit)

        sqlite.events_after = count  # type: ignore[method-assign]
        await trio.sleep(10)
        assert calls == 1
        assert house.rooms.topic.position == 3


async def test_simulated_signals_are_marked_and_come_within_a_minute(
    autojump_clock: trio.testing.MockClock, sqlite: Ledger
) -> None:
    """With plausible numbers, and an update now and then."""
    async with _house(sqlite) as house:
        with house.rooms.topic.listen(1000) as place, trio.move_on_after(600):
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(imagine_signals, house.rooms.desk, ("mexc_dex", "funding_rate"), random.Random(1))
                await _positions(place, 1)
                assert trio.current_time() - began < 60
                await trio.sleep_forever()
        signals = sqlite.signals_after(0, None, 1000)
        assert 5 < len(signals) < 60
        assert all(b'"simulated":true' in bytes(signal.data) for signal in signals)
        assert {signal.signal_type for signal in signals} == {"mexc_dex", "funding_rate"}
        assert Decimal(0) < Decimal(sqlite.counters().position) <= 2 * len(signals)
