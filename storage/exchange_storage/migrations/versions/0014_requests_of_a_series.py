"""For which requested procedures a series was made"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _word() -> sa.types.TypeEngine[str]:
    return sa.String(length=255)


def upgrade() -> None:
    op.create_table(
        "request_attributes",
        sa.Column("series_id", _number(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("requested_procedure_id", _word(), nullable=False),
        sa.Column("scheduled_procedure_step_id", _word(), nullable=False),
        sa.ForeignKeyConstraint(
            ["series_id"], ["series.id"], name=op.f("fk_request_attributes_series_id_series")
        ),
        sa.PrimaryKeyConstraint("series_id", "position", name=op.f("pk_request_attributes")),
    )
    for column in ("requested_procedure_id", "scheduled_procedure_step_id"):
        name = op.f(f"ix_request_attributes_{column}")
        op.create_index(name, "request_attributes", [column], unique=False)


def downgrade() -> None:
    op.drop_table("request_attributes")
