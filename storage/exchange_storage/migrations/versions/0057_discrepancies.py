"""What images and orders say of a patient that contradicts the record, for somebody to look at"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0057"
down_revision = "0056"
branch_labels = None
depends_on = None


def _word(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    said = ("name", "birth_date", "sex")
    op.create_table(
        "discrepancy",
        sa.Column("id", number, nullable=False),
        sa.Column("patient_id", number, nullable=False),
        sa.Column("study_instance_uid", _word(64), nullable=False),
        *(sa.Column(one, _word(255), nullable=False) for one in said),
        sa.Column("raised", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settlement", _word(255), nullable=False),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patient.id"], name=op.f("fk_discrepancy_patient_id_patient")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_discrepancy")),
    )
    op.create_index(op.f("ix_discrepancy_patient_id"), "discrepancy", ["patient_id"])


def downgrade() -> None:
    op.drop_table("discrepancy")
