"""Who is told of availability"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("application_entity", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "told_of_availability", sa.Boolean(), server_default=sa.false(), nullable=False
            )
        )


def downgrade() -> None:
    op.drop_column("application_entity", "told_of_availability")
