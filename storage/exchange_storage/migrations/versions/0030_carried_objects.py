"""Small objects that the index carries until they are put into the object store"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KEY = sa.String(4096).with_variant(sa.String(4096, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "carried",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("key", _KEY, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("carried", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_carried")),
        sa.UniqueConstraint("key", name=op.f("uq_carried_key")),
    )
    if op.get_bind().dialect.name == "postgresql":
        # It is there for seconds: not worth compressing.
        op.execute("ALTER TABLE carried ALTER COLUMN content SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.drop_table("carried")
