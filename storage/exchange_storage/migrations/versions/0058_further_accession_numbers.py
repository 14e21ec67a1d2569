"""Accession numbers that images of a study have beside the first one"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0058"
down_revision = "0057"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "further_accession_number",
        sa.Column("study_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "accession_number",
            sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["study_id"], ["study.id"], name=op.f("fk_further_accession_number_study_id_study")
        ),
        sa.PrimaryKeyConstraint(
            "study_id", "accession_number", name=op.f("pk_further_accession_number")
        ),
    )
    op.create_index(
        op.f("ix_further_accession_number_accession_number"),
        "further_accession_number",
        ["accession_number"],
    )


def downgrade() -> None:
    op.drop_table("further_accession_number")
