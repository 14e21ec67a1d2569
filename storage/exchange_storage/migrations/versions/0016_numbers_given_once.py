"""Numbers of deliveries and jobs that SQLite gives once"""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _made_anew(sqlite_autoincrement=True)


def downgrade() -> None:
    _made_anew()


def _made_anew(**of_table: bool) -> None:
    # PostgreSQL's sequences never give a number again.
    if op.get_context().dialect.name == "sqlite":
        for table in ("job", "delivery"):
            with op.batch_alter_table(table, recreate="always", table_kwargs=of_table):
                pass
