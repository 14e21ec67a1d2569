"""What a hospital's own systems call it as an issuer of patient numbers"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0056"
down_revision = "0055"
branch_labels = None
depends_on = None


def upgrade() -> None:
    word = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
    op.add_column(
        "organization",
        sa.Column("issuer_names", word, server_default=sa.text("''"), nullable=False),
    )


def downgrade() -> None:
    with op.batch_alter_table("organization") as batch_op:
        batch_op.drop_column("issuer_names")
