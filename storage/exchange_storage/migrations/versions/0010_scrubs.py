"""Scrubs and the damage that they found"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from exchange_storage.records.record import Moment

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _word(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "scrub",
        sa.Column("id", _number(), nullable=False),
        sa.Column("begun", Moment(timezone=True), nullable=False),
        sa.Column("position", _number(), nullable=False),
        sa.Column("read", _number(), nullable=False),
        sa.Column("damaged", _number(), nullable=False),
        sa.Column("finished", Moment(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scrub")),
    )
    op.create_table(
        "damage",
        sa.Column("instance_id", _number(), nullable=False),
        sa.Column("key", _word(4096), nullable=False),
        sa.Column("what", _word(255), nullable=False),
        sa.Column("found", Moment(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_damage")),
    )


def downgrade() -> None:
    op.drop_table("damage")
    op.drop_table("scrub")
