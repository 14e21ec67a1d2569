"""Studies that colleagues share by a link"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
moment = sa.DateTime(timezone=True)


def word(length: int) -> sa.String:
    """Text compared byte by byte."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "share",
        sa.Column("id", number, nullable=False),
        sa.Column("digest", word(64), nullable=False),
        sa.Column("study_instance_uid", word(64), nullable=False),
        sa.Column("sharer_id", number, nullable=False),
        sa.Column("recipient_id", number, nullable=False),
        sa.Column("purpose", word(255), nullable=False),
        sa.Column("note", word(4096), nullable=False),
        sa.Column("made", moment, nullable=False),
        sa.Column("until", moment, nullable=False),
        sa.Column("most", sa.Integer(), nullable=False),
        sa.Column("opened", sa.Integer(), nullable=False),
        sa.Column("last_opened", moment, nullable=True),
        sa.Column("revoked", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["sharer_id"], ["user_account.id"], name=op.f("fk_share_sharer_id")
        ),
        sa.ForeignKeyConstraint(
            ["recipient_id"], ["user_account.id"], name=op.f("fk_share_recipient_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_share")),
        sa.UniqueConstraint("digest", name=op.f("uq_share_digest")),
    )
    for column in ("sharer_id", "recipient_id"):
        op.create_index(op.f(f"ix_share_{column}"), "share", [column], unique=False)


def downgrade() -> None:
    op.drop_table("share")
