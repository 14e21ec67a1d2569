"""Runs the migrations on the connection that `Database.migrate` hands over."""

from __future__ import annotations

from alembic import context

from exchange_storage.records import Record

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Record.metadata,
    render_as_batch=True,
    compare_type=True,
    # Where a migration may leave its transaction, to build an index beside those who write. SQLite
    # has one for all, since its migrations are begun by the hand that gave the connection.
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
