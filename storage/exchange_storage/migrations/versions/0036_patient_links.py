"""Links by which patients have their studies, and shares of single series"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0038"
branch_labels = None
depends_on = None

number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
moment = sa.DateTime(timezone=True)


def word(length: int) -> sa.String:
    """Text compared byte by byte."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column(
        "share",
        sa.Column("series_instance_uid", word(64), nullable=False, server_default=sa.text("''")),
    )
    op.create_table(
        "patient_link",
        sa.Column("id", number, nullable=False),
        sa.Column("digest", word(64), nullable=False),
        sa.Column("study_instance_uid", word(64), nullable=False),
        sa.Column("series_instance_uid", word(64), nullable=False),
        sa.Column("maker_id", number, nullable=False),
        sa.Column("organization_id", number, nullable=False),
        sa.Column("made", moment, nullable=False),
        sa.Column("until", moment, nullable=False),
        sa.Column("wrong", sa.Integer(), nullable=False),
        sa.Column("revoked", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["maker_id"], ["user_account.id"], name=op.f("fk_patient_link_maker_id")
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_patient_link_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_patient_link")),
        sa.UniqueConstraint("digest", name=op.f("uq_patient_link_digest")),
    )
    op.create_index(op.f("ix_patient_link_maker_id"), "patient_link", ["maker_id"], unique=False)
    op.create_table(
        "patient_link_code",
        sa.Column("id", number, nullable=False),
        sa.Column("link_id", number, nullable=False),
        sa.Column("digest", word(64), nullable=False),
        sa.Column("opened", moment, nullable=True),
        sa.Column("session", word(64), nullable=True),
        sa.Column("used", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["link_id"], ["patient_link.id"], name=op.f("fk_patient_link_code_link_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_patient_link_code")),
        sa.UniqueConstraint("digest", name=op.f("uq_patient_link_code_digest")),
        sa.UniqueConstraint("session", name=op.f("uq_patient_link_code_session")),
    )
    op.create_index(
        op.f("ix_patient_link_code_link_id"), "patient_link_code", ["link_id"], unique=False
    )


def downgrade() -> None:
    op.drop_table("patient_link_code")
    op.drop_table("patient_link")
    op.drop_column("share", "series_instance_uid")
