"""Exports and imports of many resources"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOMENT = sa.DateTime(timezone=True)


def _word(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "bulk_job",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("token", _word(255), nullable=False),
        sa.Column("direction", _word(255), nullable=False),
        sa.Column("requester", _word(255), nullable=False),
        sa.Column("role", _word(255), nullable=False),
        sa.Column("organization_id", _NUMBER, nullable=True),
        sa.Column("purpose", _word(255), nullable=False),
        sa.Column("request", _word(4096), nullable=False),
        sa.Column("asked", sa.JSON(), nullable=False),
        sa.Column("made", _MOMENT, nullable=False),
        sa.Column("expires", _MOMENT, nullable=False),
        sa.Column("state", _word(255), nullable=False),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("done", _NUMBER, nullable=False),
        sa.Column("told", _word(4096), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organization.id"],
            name=op.f("fk_bulk_job_organization_id_organization"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bulk_job")),
        sa.UniqueConstraint("token", name=op.f("uq_bulk_job_token")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_bulk_job_expires"), "bulk_job", ["expires"], unique=False)
    op.create_index(
        op.f("ix_bulk_job_requester_state"), "bulk_job", ["requester", "state"], unique=False
    )
    op.create_table(
        "bulk_file",
        sa.Column("job_id", _NUMBER, nullable=False),
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("kind", _word(255), nullable=False),
        sa.Column("key", _word(255), nullable=False),
        sa.Column("size", _NUMBER, nullable=False),
        sa.Column("count", _NUMBER, nullable=False),
        sa.Column("is_error", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["bulk_job.id"], name=op.f("fk_bulk_file_job_id_bulk_job")
        ),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_bulk_file")),
    )


def downgrade() -> None:
    op.drop_table("bulk_file")
    op.drop_table("bulk_job")
