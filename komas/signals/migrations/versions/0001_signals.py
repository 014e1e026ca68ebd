"""Signals, their events, VIPs, and the counters that number them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables, and the counters at nought."""
    op.create_table(
        "signals",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("signal_type", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.Column("published_by", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("draft_digest", sa.Text, nullable=False),
        sa.UniqueConstraint("published_by", "idempotency_key"),
    )
    op.create_index("signals_by_type", "signals", ["signal_type", "id"])
    op.create_table(
        "events",
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("signal_id", sa.BigInteger, sa.ForeignKey("signals.id"), nullable=False),
        sa.Column("is_new", sa.Boolean, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("events_by_signal", "events", ["signal_id", "position"])
    op.create_table(
        "vips",
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("until_s", sa.BigInteger, nullable=False),
        sa.Column("revoked", sa.Boolean, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False, unique=True),
        sa.Column("revoked_version", sa.BigInteger, nullable=False),
    )
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(counters, [{"name": name, "value": 0} for name in ("signal", "position", "vip")])
