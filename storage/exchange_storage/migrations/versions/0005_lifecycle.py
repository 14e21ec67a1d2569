"""Rejections, retention and legal holds"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
moment = sa.DateTime(timezone=True)


def word(length: int) -> sa.String:
    """Text compared byte by byte."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "legal_hold",
        sa.Column("id", number, nullable=False),
        sa.Column("study_instance_uid", word(64), nullable=False),
        sa.Column("reason", word(4096), nullable=False),
        sa.Column("placed_by", word(255), nullable=False),
        sa.Column("placed", moment, nullable=False),
        sa.Column("lifted", moment, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legal_hold")),
    )
    with op.batch_alter_table("legal_hold", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_legal_hold_study_instance_uid"), ["study_instance_uid"], unique=False
        )

    op.create_table(
        "destroyed",
        sa.Column("id", number, nullable=False),
        sa.Column("organization_id", number, nullable=False),
        sa.Column("study_instance_uid", word(64), nullable=False),
        sa.Column("series_instance_uid", word(64), nullable=False),
        sa.Column("sop_instance_uid", word(64), nullable=False),
        sa.Column("key", word(4096), nullable=False),
        sa.Column("digest", word(64), nullable=False),
        sa.Column("reason", word(255), nullable=False),
        sa.Column("decided", moment, nullable=False),
        sa.Column("removed", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_destroyed_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_destroyed")),
    )
    with op.batch_alter_table("destroyed", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_destroyed_sop_instance_uid"), ["sop_instance_uid"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_destroyed_study_instance_uid"), ["study_instance_uid"], unique=False
        )

    op.create_table(
        "rejection",
        sa.Column("id", number, nullable=False),
        sa.Column("organization_id", number, nullable=False),
        sa.Column("study_instance_uid", word(64), nullable=False),
        sa.Column("sop_instance_uid", word(64), nullable=False),
        sa.Column("instance_id", number, nullable=True),
        sa.Column("code", word(255), nullable=False),
        sa.Column("note_sop_instance_uid", word(64), nullable=False),
        sa.Column("rejected", moment, nullable=False),
        sa.Column("withdrawn", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_rejection_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejection")),
        sa.UniqueConstraint(
            "organization_id",
            "sop_instance_uid",
            "note_sop_instance_uid",
            name=op.f("uq_rejection_note"),
        ),
    )
    with op.batch_alter_table("rejection", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_rejection_sop_instance_uid"), ["sop_instance_uid"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_rejection_study_instance_uid"), ["study_instance_uid"], unique=False
        )

    op.create_table(
        "retention_rule",
        sa.Column("id", number, nullable=False),
        sa.Column("organization_id", number, nullable=False),
        sa.Column("modality", word(255), nullable=False),
        sa.Column("days", sa.Integer(), nullable=False),
        sa.Column("made", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_retention_rule_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retention_rule")),
        sa.UniqueConstraint(
            "organization_id", "modality", name=op.f("uq_retention_rule_organization_id_modality")
        ),
    )


def downgrade() -> None:
    op.drop_table("destroyed")
    op.drop_table("rejection")
    op.drop_table("retention_rule")
    op.drop_table("legal_hold")
