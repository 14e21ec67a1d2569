"""Audit records that wait in the index for their place in the chain"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0052"
down_revision = "0051"
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "audit_waiting",
        sa.Column("id", number, nullable=False),
        sa.Column("lines", sa.LargeBinary(), nullable=False),
        sa.Column("unreadable", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_waiting")),
    )


def downgrade() -> None:
    op.drop_table("audit_waiting")
