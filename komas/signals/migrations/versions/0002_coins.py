"""The coin of each signal, and of each of its events, by which readers may filter."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import msgspec
import sqlalchemy as sa
from alembic import op

from komas.model.signal_filter import coin_key

revision = "0002"
down_revision = "0001"

PAGE = 256  # rows at once: data may have 16 KB each

_signals = sa.table("signals", sa.column("id"), sa.column("coin"))
_events = sa.table(
    "events",
    *map(sa.column, ("position", "signal_id", "data", "coin", "coin_before")),
)


class _Data(msgspec.Struct):
    coin_name: object = msgspec.UNSET


_decode = msgspec.json.Decoder(_Data).decode


def upgrade() -> None:
    """Add the columns, fill them by what was published, and index them."""
    connection = op.get_bind()
    is_postgresql = connection.dialect.name == "postgresql"
    if is_postgresql:
        op.execute("SET LOCAL statement_timeout = 0")  # an index of a long history takes longer than any request may
    op.add_column("signals", sa.Column("coin", sa.Text))
    op.add_column("events", sa.Column("coin", sa.Text))
    op.add_column("events", sa.Column("coin_before", sa.Text))
    _fill(connection)
    # Narrow ones that have all that a filter asks for, in the order of pages: data is read of what passes alone.
    op.drop_index("signals_by_type", "signals")
    op.create_index("signals_by_type", "signals", ["signal_type", "id", "coin"])
    op.create_index("signals_filtered", "signals", ["id", "signal_type", "coin"])
    op.create_index("events_filtered", "events", ["position", "coin", "coin_before", "signal_id"])
    if is_postgresql:
        op.create_index("vips_by_user", "vips", [sa.text('user_id COLLATE "C"')])


def _fill(connection: sa.Connection) -> None:
    """Follow each signal's coin from its birth through its updates."""
    changed_events = (
        _events.update()
        .where(_events.c.position == sa.bindparam("at"))
        .values(coin=sa.bindparam("after"), coin_before=sa.bindparam("before"))
    )
    changed_signals = _signals.update().where(_signals.c.id == sa.bindparam("of")).values(coin=sa.bindparam("now"))
    last: tuple[int, str | None] = 0, None
    for page in _pages(connection):
        events, signals = [], []
        for signal_id, rows in groupby(page, lambda row: row[0]):
            coin = last[1] if last[0] == signal_id else None
            for _, position, data in rows:
                before, coin = coin, _coin(data, coin)
                events.append({"at": position, "after": coin, "before": None if before == coin else before})
            signals.append({"of": signal_id, "now": coin})
            last = signal_id, coin
        connection.execute(changed_events, events)
        connection.execute(changed_signals, signals)


def _pages(connection: sa.Connection) -> Iterator[list[tuple[int, int, str]]]:
    """All events, signal by signal, in their order; what is read is not what is being written."""
    after = 0, 0
    columns = _events.c.signal_id, _events.c.position
    wanted = sa.select(*columns, _events.c.data).order_by(*columns).limit(PAGE)
    while True:
        rows = connection.execute(wanted.where(sa.tuple_(*columns) > after))
        if not (page := [(row.signal_id, row.position, row.data) for row in rows]):
            return
        yield page
        after = page[-1][:2]


def _coin(data: str, before: str | None) -> str | None:
    """The coin after an event; what cannot be read changes none."""
    try:
        name = _decode(data).coin_name
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return before
    return before if name is msgspec.UNSET else coin_key(name)
