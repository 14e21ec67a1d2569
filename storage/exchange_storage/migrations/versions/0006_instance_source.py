"""Who sent an instance, and when it was last verified"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


moment = sa.DateTime(timezone=True)


def word(length: int) -> sa.String:
    """Text compared byte by byte."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("source", word(255), server_default=sa.text("''"), nullable=False)
        )
        batch_op.add_column(sa.Column("verified", moment, nullable=True))


def downgrade() -> None:
    op.drop_column("instance", "verified")
    op.drop_column("instance", "source")
