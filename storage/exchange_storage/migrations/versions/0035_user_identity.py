"""What is done with a user whom an association of a hospital names"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    word = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
    with op.batch_alter_table("organization") as batch_op:
        batch_op.add_column(
            sa.Column("user_identity", word, server_default=sa.text("'log'"), nullable=False)
        )


def downgrade() -> None:
    with op.batch_alter_table("organization") as batch_op:
        batch_op.drop_column("user_identity")
