"""What came and went by quarters of an hour, and an index of what was refused or failed"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
WRONG = "ix_audit_record_wrong"


def upgrade() -> None:
    op.create_table(
        "traffic",
        sa.Column("organization_id", number, nullable=False),
        sa.Column("begins", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("fetched", sa.Integer(), nullable=False),
        sa.Column("fetched_by_others", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_traffic_organization_id")
        ),
        sa.PrimaryKeyConstraint("organization_id", "begins", name=op.f("pk_traffic")),
    )
    op.create_index(op.f("ix_traffic_begins"), "traffic", ["begins"], unique=False)
    op.create_table(
        "traffic_counted",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("change", number, nullable=False),
        sa.Column("record", number, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_traffic_counted")),
    )
    if op.get_context().dialect.name != "postgresql":
        op.create_index(WRONG, "audit_record", ["recorded"], sqlite_where=sa.text(_WRONG))
        return
    with op.get_context().autocommit_block():  # beside those who write
        op.execute("SET lock_timeout = 0")
        op.drop_index(
            WRONG, table_name="audit_record", if_exists=True, postgresql_concurrently=True
        )
        op.create_index(
            WRONG,
            "audit_record",
            ["recorded"],
            postgresql_where=sa.text(_WRONG),
            postgresql_concurrently=True,
        )
        op.execute("RESET lock_timeout")


_WRONG = "outcome <> 'success'"


def downgrade() -> None:
    op.drop_index(WRONG, table_name="audit_record", if_exists=True)
    op.drop_table("traffic_counted")
    op.drop_table("traffic")
