"""Transaction UIDs that were used before"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

ONCE = "uq_commitment_organization_id_transaction_uid"
EACH = "uq_commitment_organization_id_transaction_uid_repetition"


def upgrade() -> None:
    with op.batch_alter_table("commitment", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("repetition", sa.Integer(), server_default=sa.text("0"), nullable=False)
        )
        batch_op.drop_constraint(op.f(ONCE), type_="unique")
        batch_op.create_unique_constraint(
            op.f(EACH), ["organization_id", "transaction_uid", "repetition"]
        )


def downgrade() -> None:
    repeated = sa.text("SELECT id FROM commitment WHERE repetition > 0").text
    op.execute(f"DELETE FROM commitment_reference WHERE commitment_id IN ({repeated})")  # noqa: S608
    op.execute("DELETE FROM commitment WHERE repetition > 0")
    with op.batch_alter_table("commitment", schema=None) as batch_op:
        batch_op.drop_constraint(op.f(EACH), type_="unique")
        batch_op.create_unique_constraint(op.f(ONCE), ["organization_id", "transaction_uid"])
        batch_op.drop_column("repetition")
