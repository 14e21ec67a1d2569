"""Where a hospital receives priors"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("application_entity", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("receives_priors", sa.Boolean(), server_default=sa.false(), nullable=False)
        )


def downgrade() -> None:
    op.drop_column("application_entity", "receives_priors")
