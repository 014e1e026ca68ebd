"""Signals and VIPs in an SQL database: every method is one transaction, and blocks. ``store`` runs it in threads.

Written in SQLAlchemy Core for SQLite and PostgreSQL alike. All numbers come from counters that are raised inside the
transaction that uses them: writers queue up behind them, so positions are in the order of the commits, without holes.
PostgreSQL notifies all who listen of each commit, once it can be seen.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection

from komas.errors import CallerError, KeyReused, SettingError, StoreUnavailable
from komas.model.codec import encode, iso_ms, read_object
from komas.model.signal_filter import EVERYTHING, SignalFilter, coin_key
from komas.model.signals import DAY_S, Counters, Signal, SignalEvent, SignalInsert, Vip
from komas.settings import FIELDS
from komas.signals.notification import CHANNEL, POSITION, VIP, Notification
from komas.signals.validation import DATA_BYTES

LOCK_WAIT_S: Final = 5  # for another process's transaction
WAL_RETRY_S: Final = 0.02
OPENING_LOCK: Final = 0x6B6F6D6173  # "komas": any number that no other program locks
OWN_BYTES: Final = 100  # what id and created_at take
LATEST_S: Final = 2**53  # what JSON readers hold exactly
PAGE_BYTES: Final = 2**20  # of data; a thousand signals of the usual length take a third of it
ROWS_FETCHED: Final = 32  # at once: what is read beyond the end of a page is less than that
VIPS_PAGE: Final = 1000

MIGRATIONS: Final = Path(__file__).parent / "migrations"
REVISION: Final = "0002"  # the newest of them

Entry = TypeVar("Entry", Signal, SignalEvent)

_tables: Final = sa.MetaData()
_signals: Final = sa.Table(
    "signals",
    _tables,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("signal_type", sa.Text),
    sa.Column("data", sa.Text),
    sa.Column("created_ms", sa.BigInteger),
    sa.Column("updated_ms", sa.BigInteger),
    sa.Column("published_by", sa.Text),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("draft_digest", sa.Text),
    sa.Column("coin", sa.Text),  # the key of data's coin_name
)
_events: Final = sa.Table(
    "events",
    _tables,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("signal_id", sa.BigInteger),
    sa.Column("is_new", sa.Boolean),
    sa.Column("data", sa.Text),
    sa.Column("at_ms", sa.BigInteger),
    sa.Column("coin", sa.Text),  # after it
    sa.Column("coin_before", sa.Text),  # of an update that changed it
)
_vips: Final = sa.Table(
    "vips",
    _tables,
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("until_s", sa.BigInteger),
    sa.Column("revoked", sa.Boolean),
    sa.Column("version", sa.BigInteger),
    sa.Column("revoked_version", sa.BigInteger),
)
_counters: Final = sa.Table(
    "counters", _tables, sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.BigInteger)
)


class SignalDatabase:
    """The database; made closed, and opened by ``open()``."""

    def __init__(self, place: str | Path) -> None:
        """``place`` is an SQLAlchemy URL, or an SQLite file; raises ``SettingError`` for what cannot be one."""
        with _named():
            self._file = file_of(place)
            self._engine = _server(sa.make_url(str(place))) if self._file is None else _sqlite(self._file)
        self._was_open = False

    # Opening

    def open(self) -> None:
        """Bring the schema up to date; safe to call again, and from several processes (not threads) at once."""
        if self._file is not None and not self._was_open:
            _make_private(self._file)  # a file that has vanished since is not made anew: its numbers would come again
        if not self._is_current():
            self._migrate()
        self._was_open = True

    def _migrate(self) -> None:
        # Loading Alembic takes as long as everything else of a start, which seldom has anything to migrate.
        from alembic import command  # noqa: PLC0415
        from alembic.config import Config  # noqa: PLC0415
        from alembic.util import CommandError  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        with _translated(), self._begin() as connection:
            if connection.dialect.name == "postgresql":  # SQLite's BEGIN IMMEDIATE lets one in by itself
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(OPENING_LOCK)))
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise StoreUnavailable(f"its schema is not of this release of komas: {error}") from error

    def _is_current(self) -> bool:
        """Whether there is nothing to migrate; reading it needs no lock that a writer could hold."""
        with _translated(), self._engine.connect() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return False
            version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()
        return bool(version == REVISION)

    def close(self) -> None:
        """Let every connection go; one that an abandoned thread still holds is closed when it is given back."""
        sa.event.listen(self._engine, "checkin", _end)
        self._engine.dispose()

    # Signals

    def publish(self, draft: SignalInsert, now_ms: int) -> tuple[SignalEvent, Counters]:
        """Commit a signal; the event has the server's ``id`` and ``created_at`` in its data.

        Raises ``KeyReused`` when the publisher used the key for another draft.
        """
        digest = hashlib.sha256(encode([draft.signal_type, draft.data])).hexdigest()
        with self._writing() as connection:
            if draft.key is not None and (first := _first_answer(connection, draft, digest)) is not None:
                return first, _read_counters(connection)
            signal_id = _next(connection, "signal")
            own = {"id": signal_id, "created_at": iso_ms(now_ms)}
            data = encode({"id": signal_id, **_without(draft.data, own), "created_at": own["created_at"]})
            coin = coin_key(draft.data.get("coin_name"))
            row = {
                "id": signal_id,
                "signal_type": draft.signal_type,
                "data": data.decode(),
                "created_ms": now_ms,
                "updated_ms": now_ms,
                "published_by": draft.publisher,
                "idempotency_key": draft.key,
                "draft_digest": digest,
                "coin": coin,
            }
            connection.execute(_signals.insert(), row)
            event = _append(connection, signal_id, draft.signal_type, data, now_ms, is_new=True, coin=coin)
            return event, _read_counters(connection)

    def update(
        self, signal_id: int, changes: dict[str, object], now_ms: int
    ) -> tuple[Signal, SignalEvent | None, Counters] | None:
        """Commit those of the changes that change something; ``None`` for a signal that is not there."""
        with self._writing() as connection:
            row = connection.execute(sa.select(_signals).where(_signals.c.id == signal_id)).first()
            if row is None:
                return None
            known = read_object(row.data)
            changed = {
                key: value
                for key, value in _without(changes, ("id", "created_at")).items()
                if key not in known or encode(known[key]) != encode(value)
            }
            if not changed:
                return _signal(row), None, _read_counters(connection)
            data = encode({**_without(known, ("created_at",)), **changed, "created_at": known["created_at"]})
            if len(data) > DATA_BYTES + OWN_BYTES:
                raise CallerError(f"data would be longer than {DATA_BYTES} bytes", field="data")
            coin = coin_key(changed["coin_name"]) if "coin_name" in changed else row.coin
            values = {"data": data.decode(), "updated_ms": now_ms, "coin": coin}
            connection.execute(_signals.update().where(_signals.c.id == signal_id).values(values))
            event = _append(
                connection,
                signal_id,
                row.signal_type,
                encode(changed),
                now_ms,
                is_new=False,
                coin=coin,
                coin_before=None if row.coin == coin else row.coin,
            )
            signal = Signal(signal_id, row.signal_type, msgspec.Raw(data), iso_ms(row.created_ms), iso_ms(now_ms))
            return signal, event, _read_counters(connection)

    def signals_after(
        self, signal_id: int, limit: int, most_bytes: int = PAGE_BYTES, *, wanted: SignalFilter = EVERYTHING
    ) -> list[Signal]:
        """Signals as they stand now, oldest first; fewer where their data would exceed ``most_bytes``."""
        found = sa.select(_signals).order_by(_signals.c.id)
        after = _signals.c.id > signal_id
        if wanted:
            # An index has all that decides; long data is read of what is shown alone.
            shown = sa.select(_signals.c.id).where(after, *_stands(wanted)).order_by(_signals.c.id).limit(limit)
            found = found.where(_signals.c.id.in_(shown))
        else:
            found = found.where(after).limit(limit)
        with self._reading() as connection:
            return _page(connection, found, _signal, most_bytes)

    def newest_signals(self, before: int, limit: int, most_bytes: int = PAGE_BYTES) -> list[Signal]:
        """Signals below an id as they stand now, newest first; fewer where their data would exceed ``most_bytes``."""
        found = sa.select(_signals).where(_signals.c.id < before).order_by(_signals.c.id.desc()).limit(limit)
        with self._reading() as connection:
            return _page(connection, found, _signal, most_bytes)

    def newest_signal_id(self) -> int:
        """The newest signal's; 0 before the first."""
        with self._reading() as connection:
            return connection.execute(sa.select(sa.func.max(_signals.c.id))).scalar_one_or_none() or 0

    def events_after(
        self,
        position: int,
        upto: int,
        limit: int,
        most_bytes: int = PAGE_BYTES,
        *,
        wanted: SignalFilter = EVERYTHING,
    ) -> list[SignalEvent]:
        """Commits after a position, up to another one, in order; fewer where their data would exceed ``most_bytes``."""
        in_range = _events.c.position > position, _events.c.position <= upto
        found = (
            sa.select(_events, _signals.c.signal_type)
            .join(_signals, _signals.c.id == _events.c.signal_id)
            .order_by(_events.c.position)
        )
        if wanted:
            # An index has all that decides; long data is read of what passes alone.
            passing = sa.select(_events.c.position).where(*in_range, *_passes(wanted))
            found = found.where(_events.c.position.in_(passing.order_by(_events.c.position).limit(limit)))
        else:
            found = found.where(*in_range).limit(limit)
        with self._reading() as connection:
            return _page(connection, found, _event, most_bytes)

    def position_of(self, signal_id: int) -> int:
        """Where the newest signal up to an id was born; 0 before the first."""
        # Two searches in indices. The greatest position of all births up to it was found by a walk through the history.
        newest = sa.select(sa.func.max(_signals.c.id)).where(_signals.c.id <= signal_id).scalar_subquery()
        born = (
            sa.select(_events.c.position)
            .where(_events.c.signal_id == newest, _events.c.is_new)
            .order_by(_events.c.position)
            .limit(1)
        )
        with self._reading() as connection:
            return connection.execute(born).scalar_one_or_none() or 0

    def counters(self) -> Counters:
        """Where everything stands."""
        with self._reading() as connection:
            return _read_counters(connection)

    # VIPs

    def grant(self, user_id: str, days: int, now_s: int) -> Vip:
        """Make a user VIP for at least that long from now; a revocation is lifted, a longer grant stays."""
        with self._writing() as connection:
            known = _find_vip(connection, user_id)
            until_s = now_s + days * DAY_S
            if known is not None and not known.revoked:
                until_s = max(until_s, known.until_s)
            return _put_vip(connection, user_id, min(until_s, LATEST_S), revoked=False)

    def revoke(self, user_id: str, now_s: int) -> Vip:
        """End a user's VIP now, whatever tokens say; also a user's of whom nothing is known yet."""
        with self._writing() as connection:
            return _put_vip(connection, user_id, now_s, revoked=True)

    def vip(self, user_id: str) -> Vip | None:
        """What is known of a user."""
        with self._reading() as connection:
            return _find_vip(connection, user_id)

    def vips(self, after_version: int = 0, limit: int = VIPS_PAGE) -> list[Vip]:
        """A page of the users of whom something is known, in the order of their last changes."""
        wanted = sa.select(_vips).where(_vips.c.version > after_version).order_by(_vips.c.version).limit(limit)
        with self._reading() as connection:
            return [_vip(row) for row in connection.execute(wanted)]

    def vips_by_user(self, after: str, limit: int = VIPS_PAGE) -> list[Vip]:
        """A page of the users of whom something is known, by the code points of their ids, whatever the locale."""
        user = sa.collate(_vips.c.user_id, "C" if self._file is None else "BINARY")
        with self._reading() as connection:
            return [
                _vip(row)
                for row in connection.execute(sa.select(_vips).where(user > after).order_by(user).limit(limit))
            ]

    # Other processes

    def notify(self, notification: Notification) -> None:
        """Tell all processes that listen; only PostgreSQL can."""
        with _translated(), self._begin() as connection:
            connection.execute(sa.select(sa.func.pg_notify(CHANNEL, notification.text)))

    # What all of it is made of

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with _translated(), self._begin() as connection:
            # Writers queue behind one row: SQLite does so by itself (BEGIN IMMEDIATE), and ignores FOR UPDATE.
            connection.execute(sa.select(_counters).where(_counters.c.name == "position").with_for_update()).all()
            yield connection

    def _begin(self) -> AbstractContextManager[sa.Connection]:
        return self._engine.execution_options(komas_writes=True).begin()

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with _translated(), self._engine.connect() as connection:
            yield connection


def file_of(place: str | Path) -> Path | None:
    """The SQLite file of a place; ``None`` for a server's URL. Raises ``SettingError`` for what is neither."""
    if isinstance(place, Path):
        return place.absolute()
    with _named():
        url = sa.make_url(place)
        return Path(url.database or "").absolute() if url.get_backend_name() == "sqlite" else None


def connection_options(place: str | Path) -> dict[str, str | int] | None:
    """How the connections to a server are made, in libpq's words; ``None`` for an SQLite file."""
    if file_of(place) is not None:
        return None
    url = sa.make_url(str(place))
    with _named():
        _, of_url = url.get_dialect()().create_connect_args(url)
    return {**of_url, **_limits()}


def plain_address(database_url: str) -> str:
    """A server's URL as PostgreSQL's own programs take it, without a password: they look for it where ``psql`` does."""
    url = sa.make_url(database_url)
    query = {name: value for name, value in url.query.items() if "password" not in name}
    plain = url.set(drivername="postgresql", query=query)._replace(password=None)
    return plain.render_as_string(hide_password=False)


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except (sa.exc.ArgumentError, ImportError, ValueError) as error:
        raise SettingError(f"database_url: {error}; accepted: {FIELDS['database_url'].accepts}") from None


def _server(url: sa.URL) -> sa.Engine:
    return sa.create_engine(url, pool_pre_ping=True, pool_timeout=LOCK_WAIT_S, connect_args=_limits())


def _limits() -> dict[str, str | int]:
    wait_ms = LOCK_WAIT_S * 1000
    limits = (
        f"-c lock_timeout={wait_ms} -c statement_timeout={wait_ms} -c idle_in_transaction_session_timeout={wait_ms}"
    )
    return {"connect_timeout": LOCK_WAIT_S, "tcp_user_timeout": wait_ms, "options": limits}


def _sqlite(file: Path) -> sa.Engine:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{file.as_uri()}?mode=rw",  # which makes no file
            uri=True,
            timeout=LOCK_WAIT_S,
            check_same_thread=False,  # a connection is one thread's at a time, not for ever
            isolation_level=None,  # transactions are begun below
        )
        try:
            _use_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")  # what was answered 201 survives a power cut, too
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.QueuePool, pool_timeout=LOCK_WAIT_S)

    @sa.event.listens_for(engine, "connect")
    def note(connection: sqlite3.Connection, record: sa.pool.ConnectionPoolEntry) -> None:
        try:
            record.info["file"] = _identity(file)
        except OSError:  # removed in this very moment
            connection.close()
            raise

    @sa.event.listens_for(engine, "checkout")
    def check(_connection: object, record: sa.pool.ConnectionPoolEntry, _proxy: object) -> None:
        # A connection to a file that was removed, or replaced, writes to a file that is no longer read.
        if record.info["file"] != _identity(file):
            raise sa.exc.DisconnectionError

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A transaction that reads first and writes later fails at once when another one wrote in between.
        writes = connection.get_execution_options().get("komas_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch a new file to its journal; wait for others that do so at the same time, which SQLite does not do here."""
    give_up_at = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(WAL_RETRY_S)
        else:
            return


def _end(connection: DBAPIConnection | None, _record: sa.pool.ConnectionPoolEntry) -> None:
    """Close a connection that comes back to a pool which has been let go."""
    if connection is not None:
        connection.close()


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino


def _make_private(file: Path) -> None:
    """Make the file before SQLite does: signals are paid for, so only its owner may read it."""
    with _translated():
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _unavailable(str(error.orig)) from error  # the driver's words: SQLAlchemy's hold statement and values
    except (sa.exc.SQLAlchemyError, UnicodeError, msgspec.MsgspecError) as error:
        raise _unavailable(type(error).__name__) from error  # what is stored makes no sense
    except (OSError, sqlite3.Error) as error:
        raise _unavailable(str(error)) from error


def _unavailable(words: str) -> StoreUnavailable:
    return StoreUnavailable(words.strip().replace("\n", " "))


def _next(connection: sa.Connection, name: str) -> int:
    """Raise a counter; whoever listens is told its new value, once the transaction is committed."""
    raised = _counters.update().where(_counters.c.name == name).values(value=_counters.c.value + 1)
    value = connection.execute(raised.returning(_counters.c.value, *_told(connection, name))).one()[0]
    assert isinstance(value, int)
    return value


def _told(connection: sa.Connection, name: str) -> Iterator[sa.ColumnElement[object]]:
    if name in (POSITION, VIP) and connection.dialect.name == "postgresql":
        yield sa.func.pg_notify(CHANNEL, sa.literal(f"{name} ") + sa.cast(_counters.c.value, sa.Text))


def _read_counters(connection: sa.Connection) -> Counters:
    values = {row.name: row.value for row in connection.execute(sa.select(_counters))}
    if not values.keys() >= {"position", "vip"}:
        raise StoreUnavailable("its counters are missing")
    return Counters(values["position"], values["vip"])


def _append(
    connection: sa.Connection,
    signal_id: int,
    signal_type: str,
    data: bytes,
    now_ms: int,
    *,
    is_new: bool,
    coin: str | None,
    coin_before: str | None = None,
) -> SignalEvent:
    position = _next(connection, POSITION)
    row = {
        "position": position,
        "signal_id": signal_id,
        "is_new": is_new,
        "data": data.decode(),
        "at_ms": now_ms,
        "coin": coin,
        "coin_before": coin_before,
    }
    connection.execute(_events.insert(), row)
    return SignalEvent(position, signal_id, signal_type, is_new, msgspec.Raw(data), _coins(coin, coin_before))


def _coins(*keys: str | None) -> tuple[str, ...]:
    return tuple(key for key in keys if key is not None)


def _stands(wanted: SignalFilter) -> Iterator[sa.ColumnElement[bool]]:
    """What a filter asks of a signal as it stands."""
    if wanted.signal_types:
        yield _signals.c.signal_type.in_(sorted(wanted.signal_types))
    if wanted.coins:
        yield _signals.c.coin.in_(sorted(wanted.coins))


def _passes(wanted: SignalFilter) -> Iterator[sa.ColumnElement[bool]]:
    """What a filter asks of an event, as ``SignalFilter.passes()`` does."""
    if wanted.signal_types:
        # Asked event by event: from the types' side it would be a walk through the whole history.
        its_type = sa.select(_signals.c.signal_type).where(_signals.c.id == _events.c.signal_id).scalar_subquery()
        yield its_type.in_(sorted(wanted.signal_types))
    if wanted.coins:
        coins = sorted(wanted.coins)
        yield _events.c.coin.in_(coins) | _events.c.coin_before.in_(coins)


def _first_answer(connection: sa.Connection, draft: SignalInsert, digest: str) -> SignalEvent | None:
    same = (_signals.c.published_by == draft.publisher, _signals.c.idempotency_key == draft.key)
    wanted = (
        sa.select(_events, _signals.c.signal_type, _signals.c.draft_digest)
        .join(_signals, _signals.c.id == _events.c.signal_id)
        .where(*same, _events.c.is_new)
    )
    row = connection.execute(wanted).first()
    if row is None:
        return None
    if row.draft_digest != digest:
        raise KeyReused("this Idempotency-Key was used for another signal", field="Idempotency-Key")
    return _event(row)


def _page(
    connection: sa.Connection,
    wanted: sa.Select[tuple[object, ...]],
    read: Callable[[sa.Row[tuple[object, ...]]], Entry],
    most_bytes: int,
) -> list[Entry]:
    """What was selected, until its data would exceed a number of bytes, but one; the database keeps the rest."""
    page, size = list[Entry](), 0
    with connection.execution_options(yield_per=ROWS_FETCHED).execute(wanted) as rows:
        for row in rows:
            entry = read(row)
            size += memoryview(entry.data).nbytes
            if page and size > most_bytes:
                break
            page.append(entry)
    return page


def _without(data: dict[str, object], keys: Collection[str]) -> dict[str, object]:
    return {key: value for key, value in data.items() if key not in keys}


def _event(row: sa.Row[tuple[object, ...]]) -> SignalEvent:
    data, coins = msgspec.Raw(row.data.encode()), _coins(row.coin, row.coin_before)
    return SignalEvent(row.position, row.signal_id, row.signal_type, row.is_new, data, coins)


def _signal(row: sa.Row[tuple[object, ...]]) -> Signal:
    data = msgspec.Raw(row.data.encode())
    return Signal(row.id, row.signal_type, data, iso_ms(row.created_ms), iso_ms(row.updated_ms))


def _find_vip(connection: sa.Connection, user_id: str) -> Vip | None:
    row = connection.execute(sa.select(_vips).where(_vips.c.user_id == user_id)).first()
    return None if row is None else _vip(row)


def _vip(row: sa.Row[tuple[object, ...]]) -> Vip:
    return Vip(row.user_id, row.until_s, row.revoked, row.version, row.revoked_version)


def _put_vip(connection: sa.Connection, user_id: str, until_s: int, *, revoked: bool) -> Vip:
    known, version = _find_vip(connection, user_id), _next(connection, VIP)
    revoked_version = version if revoked else 0 if known is None else known.revoked_version
    vip = Vip(user_id, until_s, revoked, version, revoked_version)
    if known is None:
        connection.execute(_vips.insert(), msgspec.structs.asdict(vip))
    else:
        connection.execute(_vips.update().where(_vips.c.user_id == user_id).values(msgspec.structs.asdict(vip)))
    return vip
