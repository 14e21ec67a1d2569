"""How far the audit trail has come in the files where records wait for it"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0049"
down_revision = "0048"
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    name = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
    op.create_table(
        "journal_file",
        sa.Column("name", name, nullable=False),
        sa.Column("reached", number, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_journal_file")),
    )


def downgrade() -> None:
    op.drop_table("journal_file")
