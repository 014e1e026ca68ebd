"""Alembic's entry: it runs in the transaction that ``komas.signals.database`` has opened."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transactional_ddl=False)  # the transaction is the caller's
context.run_migrations()
