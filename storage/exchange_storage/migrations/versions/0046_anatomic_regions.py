"""The body part of a series as its Anatomic Region Sequence says it

Of series that are held already it is not known.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None

_WORD = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column(
        "series", sa.Column("anatomic_region", _WORD, server_default=sa.text("''"), nullable=False)
    )


def downgrade() -> None:
    with op.batch_alter_table("series") as batch_op:
        batch_op.drop_column("anatomic_region")
