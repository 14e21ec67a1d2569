"""Patient records that their hospital merged or took back, and persons without a card"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _word() -> sa.types.TypeEngine[str]:
    return sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")


def upgrade() -> None:
    with op.batch_alter_table("patient") as batch_op:
        batch_op.add_column(sa.Column("replaced_by_id", _number(), nullable=True))
        batch_op.add_column(
            sa.Column("withdrawn", sa.Boolean(), server_default=sa.false(), nullable=False)
        )
        batch_op.create_foreign_key(
            op.f("fk_patient_replaced_by_id_patient"), "patient", ["replaced_by_id"], ["id"]
        )
    with op.batch_alter_table("person") as batch_op:
        batch_op.alter_column("resident_id", existing_type=_word(), nullable=True)


def downgrade() -> None:
    # Without a card there is nothing by which an earlier release could know a person.
    op.execute(
        "UPDATE patient SET person_id = NULL"
        " WHERE person_id IN (SELECT id FROM person WHERE resident_id IS NULL)"
    )
    op.execute(
        "DELETE FROM link WHERE person_id IN (SELECT id FROM person WHERE resident_id IS NULL)"
    )
    op.execute("DELETE FROM person WHERE resident_id IS NULL")
    with op.batch_alter_table("person") as batch_op:
        batch_op.alter_column("resident_id", existing_type=_word(), nullable=False)
    with op.batch_alter_table("patient") as batch_op:
        batch_op.drop_constraint(op.f("fk_patient_replaced_by_id_patient"), type_="foreignkey")
        batch_op.drop_column("withdrawn")
        batch_op.drop_column("replaced_by_id")
