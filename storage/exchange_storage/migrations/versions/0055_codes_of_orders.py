"""The codes, the room and the visit of an order

Orders of the releases before have none of them until their requests are written anew.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0055"
down_revision = "0054"
branch_labels = None
depends_on = None

_COLUMNS = ("location", "admission_id")


def _word() -> sa.types.TypeEngine[str]:
    return sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")


def upgrade() -> None:
    for name in _COLUMNS:
        op.add_column(
            "imaging_order", sa.Column(name, _word(), nullable=False, server_default=sa.text("''"))
        )
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "order_code",
        sa.Column("order_id", number, nullable=False),
        sa.Column("kind", _word(), nullable=False),
        sa.Column("item", sa.Integer(), nullable=False),
        sa.Column("equivalent", sa.Integer(), nullable=False),
        *(
            sa.Column(name, _word(), nullable=False)
            for name in ("value", "scheme", "version", "meaning", "system")
        ),
        sa.ForeignKeyConstraint(
            ["order_id"], ["imaging_order.id"], name=op.f("fk_order_code_order_id")
        ),
        sa.PrimaryKeyConstraint(
            "order_id", "kind", "item", "equivalent", name=op.f("pk_order_code")
        ),
    )


def downgrade() -> None:
    op.drop_table("order_code")
    with op.batch_alter_table("imaging_order") as batch_op:
        for name in _COLUMNS:
            batch_op.drop_column(name)
