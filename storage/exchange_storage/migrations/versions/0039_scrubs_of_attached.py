"""What is attached to clinical resources is read again, and damage to it is noted"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0034"
branch_labels = None
depends_on = None

_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_moment = sa.DateTime(timezone=True)


def _word(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "attached_damage",
        sa.Column("attached_id", _number, nullable=False),
        sa.Column("key", _word(4096), nullable=False),
        sa.Column("what", _word(255), nullable=False),
        sa.Column("found", _moment, nullable=False),
        sa.PrimaryKeyConstraint("attached_id", name=op.f("pk_attached_damage")),
    )
    op.add_column("attached", sa.Column("verified", _moment, nullable=True))
    op.add_column(
        "scrub",
        sa.Column("attached_position", _number, nullable=False, server_default=sa.text("0")),
    )


def downgrade() -> None:
    op.drop_column("scrub", "attached_position")
    op.drop_column("attached", "verified")
    op.drop_table("attached_damage")
