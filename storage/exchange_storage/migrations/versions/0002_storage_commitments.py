"""Storage commitments"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
moment = sa.DateTime(timezone=True)


def word(length: int) -> sa.String:
    """Text compared byte by byte."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "commitment",
        sa.Column("id", number, nullable=False),
        sa.Column("organization_id", number, nullable=False),
        sa.Column("transaction_uid", word(64), nullable=False),
        sa.Column("requester", word(255), nullable=False),
        sa.Column("address", word(255), nullable=False),
        sa.Column("requested", moment, nullable=False),
        sa.Column("checked", moment, nullable=True),
        sa.Column("reported", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_commitment_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment")),
        sa.UniqueConstraint(
            "organization_id",
            "transaction_uid",
            name=op.f("uq_commitment_organization_id_transaction_uid"),
        ),
    )
    op.create_table(
        "commitment_reference",
        sa.Column("commitment_id", number, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("sop_class_uid", word(64), nullable=False),
        sa.Column("sop_instance_uid", word(64), nullable=False),
        sa.Column("failure_reason", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["commitment_id"], ["commitment.id"], name=op.f("fk_commitment_reference_commitment_id")
        ),
        sa.PrimaryKeyConstraint("commitment_id", "position", name=op.f("pk_commitment_reference")),
    )
    with op.batch_alter_table("commitment_reference", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_commitment_reference_sop_instance_uid"),
            ["sop_instance_uid"],
            unique=False,
        )


def downgrade() -> None:
    op.drop_table("commitment_reference")
    op.drop_table("commitment")
