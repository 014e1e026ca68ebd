"""The ledger's contract, on a real SQLite file and, where there is one, on a real PostgreSQL server."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from komas.errors import CallerError, KeyReused, SettingError, StoreUnavailable
from komas.model.signal_filter import SignalFilter
from komas.model.signals import DAY_S, Counters, SignalEvent, SignalInsert
from komas.signals import database as database_module
from komas.signals.database import (
    MIGRATIONS,
    PAGE_BYTES,
    REVISION,
    ROWS_FETCHED,
    SignalDatabase,
    connection_options,
    file_of,
)
from tests.postgresql import PostgreSQL

NOW_MS = 1_770_000_000_123
NOW_S = NOW_MS // 1000
NB, OTHER = (SignalFilter(coins=frozenset({each})) for each in ("nb", "other"))
DEX, FUNDING = (SignalFilter(frozenset({each})) for each in ("mexc_dex", "funding_rate"))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'komas.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    server.empty()
    return server.url


@pytest.fixture
def database(url: str) -> Iterator[SignalDatabase]:
    """An open ledger."""
    database = SignalDatabase(url)
    database.open()
    yield database
    database.close()


def _draft(number: int = 1, key: str | None = None, publisher: str = "p") -> SignalInsert:
    return SignalInsert("mexc_dex", {"coin_name": "NB", "spread": Decimal("8.840"), "number": number}, publisher, key)


def _data(event: SignalEvent) -> str:
    return bytes(event.data).decode()


def test_a_signal_has_the_servers_id_and_time_in_it(database: SignalDatabase) -> None:
    """Whatever the producer put there; digits stay."""
    draft = SignalInsert("mexc_dex", {"id": 77, "spread": Decimal("8.840"), "created_at": "yesterday"}, "p")
    event, counters = database.publish(draft, NOW_MS)
    assert _data(event) == '{"id":1,"spread":8.840,"created_at":"2026-02-02T02:40:00.123Z"}'
    assert (event.signal_id, event.position, counters.position) == (1, 1, 1)
    [signal] = database.signals_after(0, 10)
    assert bytes(signal.data).decode() == _data(event)


def test_a_later_position_is_never_seen_before_an_earlier_one(
    url: str, database: SignalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes commit at once, and the first is held up: who reads at the second would have missed the first."""
    has_number, release = threading.Event(), threading.Event()
    read = database_module._read_counters  # noqa: SLF001 - the last thing of a transaction

    def hold(connection: sa.Connection) -> Counters:
        if threading.current_thread() is first:  # its position is taken, and not committed
            has_number.set()
            assert release.wait(30)
        return read(connection)

    monkeypatch.setattr(database_module, "_read_counters", hold)
    other = SignalDatabase(url)
    first = threading.Thread(target=database.publish, args=(_draft(1), NOW_MS))
    second = threading.Thread(target=other.publish, args=(_draft(2), NOW_MS))
    third = threading.Thread(target=other.revoke, args=("123", NOW_S))  # a revocation is told before a later signal
    first.start()
    assert has_number.wait(30)
    second.start()
    third.start()
    for each in (second, third):
        each.join(0.2)
        assert each.is_alive()
    with closing(SignalDatabase(url)) as reader:
        assert reader.counters() == Counters(0, 0)
        assert reader.events_after(0, 10, 10) == []
        release.set()
        for each in (first, second, third):
            each.join(30)
        assert [(event.position, event.signal_id) for event in reader.events_after(0, 10, 10)] == [(1, 1), (2, 2)]
        assert ['"number":1' in _data(event) for event in reader.events_after(0, 10, 10)] == [True, False]
    other.close()


@pytest.mark.parametrize("given", [Path("komas.db"), "sqlite:///komas.db"])
def test_a_file_has_no_connection_options(given: str | Path) -> None:
    """Nothing can be listened to there."""
    assert connection_options(given) is None


def test_the_listener_connects_as_all_other_connections_do() -> None:
    """With the URL's user, password, hosts and TLS, and with our time-outs."""
    pytest.importorskip("psycopg")
    url = "postgresql+psycopg://user:pass%20word@/db?host=a:1&host=b:2&sslmode=verify-full&sslrootcert=/ca.pem"
    options = connection_options(url)
    assert options is not None
    assert options.items() >= {
        ("user", "user"),
        ("password", "pass word"),
        ("dbname", "db"),
        ("host", "a,b"),
        ("port", "1,2"),
        ("sslmode", "verify-full"),
        ("sslrootcert", "/ca.pem"),
        ("connect_timeout", 5),
    }


def test_an_update_is_exactly_what_changed(database: SignalDatabase) -> None:
    """The rest is left out; what changes nothing is no event; ``id`` and ``created_at`` stay the server's."""
    database.publish(_draft(), NOW_MS)
    changes: dict[str, object] = {"spread": Decimal("9.10"), "coin_name": "NB", "new": None, "id": 5, "created_at": ""}
    done = database.update(1, changes, NOW_MS + 1000)
    assert done is not None
    signal, event, counters = done
    assert event is not None
    assert _data(event) == '{"spread":9.10,"new":null}'
    assert counters.position == 2
    assert b'"spread":9.10,' in bytes(signal.data)
    assert bytes(signal.data).endswith(b'"new":null,"created_at":"2026-02-02T02:40:00.123Z"}')
    assert signal.updated_at == "2026-02-02T02:40:01.123Z"
    again = database.update(1, changes, NOW_MS + 2000)
    assert again is not None
    assert again[1] is None
    assert database.update(2, changes, NOW_MS) is None
    with pytest.raises(CallerError, match="longer than"):
        for number in range(100):
            database.update(1, {f"field_{number}": "x" * 1000}, NOW_MS)
    assert len(bytes(database.signals_after(0, 1)[0].data)) < 17_000
    other_digits = database.update(1, {"spread": Decimal("9.1")}, NOW_MS)
    assert other_digits is not None
    assert other_digits[1] is not None


def test_a_retry_is_the_same_signal(database: SignalDatabase) -> None:
    """Also after an update; another draft with the key is an error, another publisher's key is another key."""
    first, _ = database.publish(_draft(key="k"), NOW_MS)
    database.update(1, {"spread": Decimal(1)}, NOW_MS)
    again, counters = database.publish(_draft(key="k"), NOW_MS + 5)
    assert (again.signal_id, again.position, _data(again)) == (1, 1, _data(first))
    assert counters.position == 2
    with pytest.raises(KeyReused):
        database.publish(_draft(2, key="k"), NOW_MS)
    assert database.publish(_draft(key="k", publisher="q"), NOW_MS)[0].signal_id == 2
    assert database.publish(_draft(), NOW_MS)[0].signal_id == 3
    assert database.publish(_draft(), NOW_MS)[0].signal_id == 4


def test_events_are_read_in_pages_and_bounds(database: SignalDatabase) -> None:
    """After one position, up to another."""
    for number in range(1, 6):
        database.publish(_draft(number), NOW_MS)
        database.update(number, {"number": -number}, NOW_MS)
    assert [event.position for event in database.events_after(2, 9, 4)] == [3, 4, 5, 6]
    assert [event.position for event in database.events_after(8, 9, 4)] == [9]
    assert [event.is_new for event in database.events_after(0, 4, 4)] == [True, False, True, False]
    assert [database.position_of(number) for number in (0, 1, 3, 5, 6, 2**53)] == [0, 1, 5, 9, 9, 9]
    assert [signal.id for signal in database.signals_after(1, 3, wanted=DEX)] == [2, 3, 4]
    assert database.signals_after(1, 3, wanted=FUNDING) == []


def test_vips_are_granted_revoked_and_listed(database: SignalDatabase) -> None:
    """A longer grant stays, a revocation is lifted by a grant, each change has a version of its own."""
    assert database.vip("1") is None
    long = database.grant("1", 30, NOW_S)
    assert long.until_s == NOW_S + 30 * DAY_S
    assert database.grant("1", 1, NOW_S).until_s == long.until_s
    revoked = database.revoke("1", NOW_S + 5)
    assert (revoked.revoked, revoked.until_s) == (True, NOW_S + 5)
    assert database.grant("1", 1, NOW_S).until_s == NOW_S + DAY_S
    assert database.revoke("never seen", NOW_S).revoked
    assert [vip.user_id for vip in database.vips()] == ["1", "never seen"]
    assert [vip.user_id for vip in database.vips(4)] == ["never seen"]
    assert database.counters().vip == 5
    assert database.grant("2", 36_500, 2**53).until_s == 2**53


def test_what_was_committed_is_there_after_opening_again(url: str) -> None:
    """And opening it from several processes at once, the first time, is no harm."""
    program = "import sys; from komas.signals.database import SignalDatabase; SignalDatabase(sys.argv[1]).open()"
    openers = [subprocess.Popen([sys.executable, "-c", program, url]) for _ in range(4)]
    assert [opener.wait() for opener in openers] == [0, 0, 0, 0]
    first, second = SignalDatabase(url), SignalDatabase(url)
    first.open()
    first.publish(_draft(), NOW_MS)
    second.open()
    assert len(second.events_after(0, 10, 10)) == 1
    first.close()
    second.close()


def test_opening_waits_for_whoever_opens_for_the_first_time_too(tmp_path: Path) -> None:
    """SQLite's own patience does not cover the change of a history: "database is locked", at once."""
    with closing(sqlite3.connect(tmp_path / "komas.db", isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE another (column)")
        release = threading.Timer(0.3, other.execute, ["COMMIT"])
        release.start()
        database = SignalDatabase(tmp_path / "komas.db")
        database.open()
        release.join()
        assert database.counters().position == 0
        database.close()


def test_writers_in_several_processes_leave_no_hole_and_no_repeat(url: str, database: SignalDatabase) -> None:
    """Positions are one to the last, and a reader who has seen one has seen all before it; nobody is locked out."""
    program = (
        "import sys; from komas.signals.database import SignalDatabase; from komas.model.signals import SignalInsert\n"
        "ledger = SignalDatabase(sys.argv[1]); ledger.open()\n"
        "for number in range(40):\n"
        "    event, _ = ledger.publish(SignalInsert('mexc_dex', {'n': number}, sys.argv[2]), 0)\n"
        "    ledger.grant(sys.argv[2], 1, number)\n"
        "    ledger.update(event.signal_id, {'n': -number - 1}, 0)\n"
        "    ledger.revoke(str(number % 3), number)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, url, str(number)]) for number in range(3)]
    seen: list[int] = []
    while any(writer.poll() is None for writer in writers) or len(seen) < 240:
        page = database.events_after(seen[-1] if seen else 0, 10**6, 50)
        if not page and all(writer.poll() is not None for writer in writers):
            break
        seen += [event.position for event in page]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert seen == list(range(1, 241))
    assert [signal.id for signal in database.signals_after(0, 1000)] == list(range(1, 121))


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Signals are paid for."""
    database = SignalDatabase(f"sqlite:///{tmp_path / 'new' / 'komas.db'}")
    database.open()
    database.close()
    if os.name == "posix":
        for file in (tmp_path / "new").iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_database_of_a_newer_release_is_said(database: SignalDatabase, url: str) -> None:
    """Not guessed at."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(StoreUnavailable, match="not of this release"):
        database.open()


def test_what_goes_wrong_with_the_file_is_one_kind_of_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrupt, locked, not a file: the database's words, without the statement and its values."""
    corrupt = tmp_path / "corrupt.db"
    corrupt.write_bytes(b"this is no database, whatever its name says" * 100)
    folder = tmp_path / "folder.db"
    folder.mkdir()
    for path in (corrupt, folder, tmp_path / "corrupt.db" / "below.db"):
        database = SignalDatabase(f"sqlite:///{path}")
        with pytest.raises(StoreUnavailable):
            database.open()
        database.close()
    monkeypatch.setattr("komas.signals.database.LOCK_WAIT_S", 0.1)
    database = SignalDatabase(f"sqlite:///{tmp_path / 'locked.db'}")
    database.open()
    holder = sqlite3.connect(tmp_path / "locked.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable) as caught:
        database.publish(SignalInsert("mexc_dex", {"secret": "paid for"}, "p"), NOW_MS)
    assert _code(caught.value) == sqlite3.SQLITE_BUSY
    assert "paid for" not in str(caught.value)
    assert database.counters().position == 0
    holder.execute("ROLLBACK")
    holder.close()
    assert database.publish(_draft(), NOW_MS)[0].position == 1
    database.close()


@pytest.mark.parametrize(
    "url", ["nonsense", "postgresql+nonsense://host/db", "mysql://host/db", "postgresql+psycopg://u:p@h:port/db"]
)
def test_an_address_that_is_none_is_said(url: str) -> None:
    """In one line, before anything is opened."""
    with pytest.raises(SettingError, match="database_url"):
        SignalDatabase(url)


def test_a_folder_of_any_name_will_do(tmp_path: Path) -> None:
    """A path is no URL."""
    folder = tmp_path / "a?b#c%41 ü"
    database = SignalDatabase(folder / "komas.db")
    database.open()
    database.publish(_draft(), NOW_MS)
    database.close()
    assert (folder / "komas.db").stat().st_size


def test_a_damaged_page_is_the_stores_failure(tmp_path: Path) -> None:
    """Whatever it makes of the bytes."""
    path = tmp_path / "komas.db"
    database = SignalDatabase(path)
    database.open()
    for number in range(50):
        database.publish(_draft(number), NOW_MS)
    database.close()
    whole = bytearray(path.read_bytes())
    failed = 0
    for seed in range(60):
        chance = random.Random(seed)
        damaged = bytearray(whole)
        for _ in range(40):
            damaged[chance.randrange(16, len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        for suffix in ("-wal", "-shm"):
            (tmp_path / f"komas.db{suffix}").unlink(missing_ok=True)
        database = SignalDatabase(path)
        try:
            database.open()
            database.counters()
        except StoreUnavailable:
            failed += 1
        database.close()
    assert failed > 10


@contextmanager
def _at_checkout(do: Callable[[sqlite3.Connection], object]) -> Iterator[None]:
    """Do something with each connection that a ledger takes out of its pool."""

    def listen(connection: sqlite3.Connection, *_: object) -> None:
        do(connection)

    sa.event.listen(sa.Pool, "checkout", listen)
    try:
        yield
    finally:
        sa.event.remove(sa.Pool, "checkout", listen)


def _code(error: StoreUnavailable) -> int:
    """SQLite's own code of what went wrong."""
    cause = error.__cause__
    assert isinstance(cause, sa.exc.DBAPIError)
    assert isinstance(cause.orig, sqlite3.Error)
    return cause.orig.sqlite_errorcode


def test_a_full_disk_loses_nothing_and_is_over_when_there_is_room(tmp_path: Path) -> None:
    """What was answered is there, what was not is not; a limit of SQLite's own stands for the disk's."""
    database = SignalDatabase(tmp_path / "komas.db")
    database.open()

    answered = 0
    with _at_checkout(lambda connection: connection.execute("PRAGMA max_page_count = 60")):
        with pytest.raises(StoreUnavailable) as caught:
            for number in range(10_000):
                database.publish(SignalInsert("mexc_dex", {"filling": "x" * 1000, "number": number}, "p"), NOW_MS)
                answered += 1
        assert _code(caught.value) == sqlite3.SQLITE_FULL
    assert database.counters().position == answered > 10
    assert len(database.events_after(0, 10_000, 10_000)) == answered
    with _at_checkout(lambda connection: connection.execute("PRAGMA max_page_count = 10000")):
        assert database.publish(_draft(), NOW_MS)[0].position == answered + 1
    database.close()


def test_a_writer_elsewhere_keeps_no_reader_out(tmp_path: Path) -> None:
    """Opening needs no lock where there is nothing to migrate."""
    first = SignalDatabase(tmp_path / "komas.db")
    first.open()
    first.publish(_draft(), NOW_MS)
    holder = sqlite3.connect(tmp_path / "komas.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    second = SignalDatabase(tmp_path / "komas.db")
    for database in (first, second):
        database.open()
        assert database.counters().position == 1
        database.close()
    holder.execute("ROLLBACK")
    holder.close()


def test_a_connection_that_a_thread_still_holds_is_closed_when_it_comes_back(tmp_path: Path) -> None:
    """The store waits for no thread that it has given up; without this, Python warned of an open database later."""
    database = SignalDatabase(tmp_path / "komas.db")
    database.open()
    held: list[sqlite3.Connection] = []

    def close_meanwhile(connection: sqlite3.Connection) -> None:
        held.append(connection)
        database.close()

    with _at_checkout(close_meanwhile):
        assert database.counters().position == 0
    with pytest.raises(sqlite3.ProgrammingError):
        held[0].execute("SELECT 1")


def test_the_newest_migration_is_the_one_that_is_looked_for() -> None:
    """A store that has it is opened without a look at the migrations."""
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == REVISION


def _publish_large(database: SignalDatabase, count: int) -> None:
    for number in range(count):
        database.publish(SignalInsert("mexc_dex", {"number": number, "filling": "x" * 16_000}, "p"), NOW_MS)


def test_a_page_ends_at_its_bytes(database: SignalDatabase) -> None:
    """A thousand rows of 16 KB were one page of 16 MB: sixty unread ones took the memory of the machine."""
    _publish_large(database, 70)
    for after in (database.signals_after, lambda known, limit: database.events_after(known, 70, limit)):
        pages = [after(0, 1000)]
        while page := after(len(pages) and sum(map(len, pages)), 1000):
            pages.append(page)
        sizes = [sum(len(bytes(entry.data)) for entry in page) for page in pages]
        assert [len(page) for page in pages] == [65, 5]
        assert max(sizes) <= PAGE_BYTES
    assert len(database.signals_after(0, 3)) == 3


def test_an_entry_longer_than_a_page_is_a_page(database: SignalDatabase) -> None:
    """Or nobody would get past it."""
    _publish_large(database, 2)
    assert [signal.id for signal in database.signals_after(0, 10, most_bytes=1)] == [1]
    assert [event.position for event in database.events_after(1, 2, 10, most_bytes=1)] == [2]


def test_a_page_loads_no_more_than_it_shows(tmp_path: Path) -> None:
    """The rest of the rows stays in the database: what is fetched of them is counted where it is fetched."""
    database = SignalDatabase(tmp_path / "komas.db")
    database.open()
    _publish_large(database, 200)
    fetched = 0

    def count(_cursor: sqlite3.Cursor, row: tuple[object, ...]) -> tuple[object, ...]:
        nonlocal fetched
        fetched += 1
        return row

    with _at_checkout(lambda connection: setattr(connection, "row_factory", count)):
        assert len(database.signals_after(0, 200)) == 65
        assert len(database.events_after(0, 200, 200)) == 65
    assert fetched <= 2 * (65 + ROWS_FETCHED)
    database.close()


def test_vips_come_in_pages(database: SignalDatabase) -> None:
    """Of a million, no call loads more than a thousand."""
    for number in range(7):
        database.grant(str(number), 1, NOW_S)
    database.grant("2", 5, NOW_S)
    assert [vip.user_id for vip in database.vips(limit=4)] == ["0", "1", "3", "4"]
    assert [vip.user_id for vip in database.vips(5, limit=4)] == ["5", "6", "2"]


def _steps(database: SignalDatabase, ask: Callable[[], object]) -> int:
    """How many steps of SQLite's machine a question takes; its plan may say SEARCH of a walk through everything."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with _at_checkout(lambda connection: connection.set_progress_handler(count, 1)):
        ask()
    with _at_checkout(lambda connection: connection.set_progress_handler(None, 0)):
        database.counters()
    return steps


def test_an_old_since_id_is_found_without_a_walk_through_the_history(tmp_path: Path) -> None:
    """Of 300,000 events it took 84 ms. What each question of a reader costs does not grow with what came later."""
    database = SignalDatabase(tmp_path / "komas.db")
    database.open()
    questions: dict[str, Callable[[], object]] = {
        "position_of": lambda: database.position_of(7),
        "events_after": lambda: database.events_after(7, 20, 10),
        "signals_after": lambda: database.signals_after(7, 10),
        "signals_after, one type": lambda: database.signals_after(7, 10, wanted=DEX),
        "signals_after, another type": lambda: database.signals_after(7, 10, wanted=FUNDING),
        "signals_after, one coin": lambda: database.signals_after(7, 10, wanted=NB),
        "events_after, one type": lambda: database.events_after(7, 20, 10, wanted=DEX),
        "events_after, another type": lambda: database.events_after(7, 20, 10, wanted=FUNDING),
        "events_after, one coin": lambda: database.events_after(7, 20, 10, wanted=NB),
        "events_after, another coin": lambda: database.events_after(7, 20, 10, wanted=OTHER),
        "counters": database.counters,
    }
    costs: list[dict[str, int]] = []
    for more in (20, 150):
        for number in range(more):
            database.publish(_draft(number), NOW_MS)
            database.update(max(1, number), {"spread": number}, NOW_MS)
        costs.append({name: _steps(database, ask) for name, ask in questions.items()})
    few, many = costs
    assert all(many[name] < 1.5 * few[name] for name in questions), costs
    database.close()


def _coins_of(database: SignalDatabase, *coins: str, types: frozenset[str] = frozenset()) -> list[int]:
    wanted = SignalFilter(types, frozenset(coins))
    return [event.position for event in database.events_after(0, 9999, 9999, wanted=wanted)]


def _named(name: object, signal_type: str = "mexc_dex") -> SignalInsert:
    return SignalInsert(signal_type, {"coin_name": name}, "p")


def test_an_update_is_found_by_the_coin_before_and_after_it(database: SignalDatabase) -> None:
    """A signal that became another coin's is told to readers of both; what comes later, to those of the new one."""
    database.publish(_named("BTC"), NOW_MS)
    database.publish(SignalInsert("funding_rate", {"spread": 1}, "p"), NOW_MS)
    told: SignalEvent | None = None
    for changes in ({"spread": 2}, {"coin_name": "Eth"}, {"spread": 3}, {"coin_name": "ETH"}, {"coin_name": "btc "}):
        done = database.update(1, dict(changes), NOW_MS)
        assert done is not None
        told = done[1]
    assert _coins_of(database, "btc") == [1, 3, 4, 7]
    assert _coins_of(database, "eth") == [4, 5, 6, 7]
    assert _coins_of(database, "btc", "eth") == [1, 3, 4, 5, 6, 7]
    assert _coins_of(database, "btc", types=frozenset({"funding_rate"})) == []
    assert _coins_of(database, types=frozenset({"funding_rate"})) == [2]
    by_position = {event.position: event.coins for event in database.events_after(0, 7, 10)}
    assert by_position == {
        1: ("btc",),
        2: (),
        3: ("btc",),
        4: ("eth", "btc"),
        5: ("eth",),
        6: ("eth",),
        7: ("btc", "eth"),
    }
    assert told is not None
    assert told.coins == by_position[7]  # what is told at once is what is read later
    assert [signal.id for signal in database.signals_after(0, 9, wanted=NB)] == []
    assert [signal.id for signal in database.signals_after(0, 9, wanted=SignalFilter(coins=frozenset({"btc"})))] == [1]
    assert database.newest_signal_id() == 2


def test_a_name_that_no_filter_can_have_is_published_all_the_same(database: SignalDatabase) -> None:
    """PostgreSQL takes no NUL in a text, and no long one in an index: the signal was refused with 503."""
    for name in ("a\x00b", "A,B", "", "ß" * 7000, "\U0001f680" * 64, "x" * 64, None):
        event, _ = database.publish(_named(name), NOW_MS)
        assert json.loads(bytes(event.data))["coin_name"] == name
    database.update(6, {"coin_name": "b\x00"}, NOW_MS)
    assert _coins_of(database, "x" * 64) == [6, 8]
    assert len(database.events_after(0, 99, 99)) == 8


def test_a_page_of_a_filter_ends_at_its_rows_and_bytes(database: SignalDatabase) -> None:
    """The filter stands before the limit: a page is full of what is wanted, and leads on."""
    for number in range(60):
        database.publish(
            SignalInsert("mexc_dex", {"coin_name": "NB" if number % 3 else "X", "filling": "x" * 9000}, "p"), NOW_MS
        )
    wanted = [number + 1 for number in range(60) if number % 3]
    assert [event.position for event in database.events_after(0, 60, 10, wanted=NB)] == wanted[:10]
    assert [event.position for event in database.events_after(wanted[9], 60, 10, wanted=NB)] == wanted[10:20]
    assert [signal.id for signal in database.signals_after(0, 1000, 45_000, wanted=NB)] == wanted[:4]
    assert database.events_after(59, 59, 10, wanted=NB) == []
    many = SignalFilter(coins=frozenset({"nb", *map(str, range(1024))}))
    assert [event.position for event in database.events_after(0, 60, 100, wanted=many)] == wanted


def test_a_history_from_before_filters_is_found_by_its_coins(url: str) -> None:
    """Each event has the coin that the signal had then, and the one before; what cannot be read hinders nothing."""
    history = [
        (1, 1, True, '{"id":1,"coin_name":"BTC"}'),
        (2, 2, True, '{"id":2,"spread":1}'),
        (3, 1, False, '{"spread":1e30}'),
        (4, 1, False, '{"coin_name":"eth"}'),
        (5, 3, True, '{"id":3,"coin_name":{"a":1}}'),
        (6, 2, False, '{"coin_name":" Btc "}'),
        (7, 1, False, '{"spread":2'),
        (8, 1, False, '{"coin_name":"ETH"}'),
        (9, 1, False, '{"coin_name":"a,b"}'),
        (10, 1, False, '{"coin_name":"BTC"}'),
    ]
    _make_old(url, history)
    with closing(SignalDatabase(url)) as database:
        database.open()
        found = {event.position: event.coins for event in database.events_after(0, 10, 100)}
        assert found == {
            1: ("btc",),
            2: (),
            3: ("btc",),
            4: ("eth", "btc"),
            5: (),
            6: ("btc",),
            7: ("eth",),
            8: ("eth",),
            9: ("eth",),
            10: ("btc",),
        }
        assert [
            signal.id for signal in database.signals_after(0, 9, wanted=SignalFilter(coins=frozenset({"btc"})))
        ] == [1, 2]
        assert database.counters().position == 10
        event, counters = database.publish(_named("BTC"), NOW_MS)
        assert (event.position, event.signal_id, counters.position) == (11, 4, 11)


def test_a_long_history_is_followed_from_page_to_page(url: str) -> None:
    """A signal's coin is known at its five hundredth update, which is read long after its birth."""
    history = [(number, number, True, f'{{"id":{number},"coin_name":"C{number}"}}') for number in (1, 2)]
    history += [(number, 1 + number % 2, False, f'{{"spread":{number}}}') for number in range(3, 1000)]
    history += [(1000, 1, False, '{"coin_name":"new"}'), (1001, 1, False, '{"spread":1}')]
    _make_old(url, history)
    with closing(SignalDatabase(url)) as database:
        database.open()
        assert _coins_of(database, "c1") == [1, *range(4, 1000, 2), 1000]
        assert _coins_of(database, "c2") == [2, *range(3, 1000, 2)]
        assert _coins_of(database, "new") == [1000, 1001]


def _make_old(url: str, history: list[tuple[int, int, bool, str]]) -> None:
    """A database of the release before, with these events."""
    if (file := file_of(url)) is not None:
        file.touch()
    engine = sa.create_engine(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    signals = {signal_id: data for _, signal_id, is_new, data in history if is_new}
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for signal_id, data in signals.items():
            connection.execute(
                sa.text("INSERT INTO signals VALUES (:id, 'mexc_dex', :data, 0, 0, 'p', NULL, 'd')"),
                {"id": signal_id, "data": data},
            )
        for position, signal_id, is_new, data in history:
            connection.execute(
                sa.text("INSERT INTO events VALUES (:at, :id, :is_new, :data, 0)"),
                {"at": position, "id": signal_id, "is_new": is_new, "data": data},
            )
        for name, value in (("signal", len(signals)), ("position", len(history))):
            connection.execute(
                sa.text("UPDATE counters SET value = :value WHERE name = :name"), {"value": value, "name": name}
            )
    engine.dispose()


def test_users_come_in_the_order_of_their_code_points(database: SignalDatabase) -> None:
    """In every database: a server's language sorts letters without regard to case, and leaves marks out."""
    users = ["10", "9", "B", "a", "a-b", "ab", "b", "\u00e4", "\u0431", "\u5e01", "\U0001f680"]
    for user in reversed(users):
        database.grant(user, 1, NOW_S)
    assert [vip.user_id for vip in database.vips_by_user("")] == users
    assert [vip.user_id for vip in database.vips_by_user("a", 3)] == ["a-b", "ab", "b"]
    assert [vip.user_id for vip in database.vips_by_user("aa")] == users[5:]
