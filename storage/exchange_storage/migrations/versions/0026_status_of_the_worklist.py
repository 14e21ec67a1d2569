"""Event reports about the worklist itself, which are of no workitem"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

# Anew, and still with numbers that are never used again.
_ANEW = {"sqlite_autoincrement": True}


def upgrade() -> None:
    with op.batch_alter_table("workitem_event", table_kwargs=_ANEW) as batch_op:
        batch_op.alter_column("workitem_id", existing_type=sa.BigInteger(), nullable=True)


def downgrade() -> None:
    op.execute("DELETE FROM workitem_event WHERE workitem_id IS NULL")
    with op.batch_alter_table("workitem_event", table_kwargs=_ANEW) as batch_op:
        batch_op.alter_column("workitem_id", existing_type=sa.BigInteger(), nullable=False)
