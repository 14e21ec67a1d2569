"""Numbers of a person"""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("patient", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_patient_person_id_organization_id_patient_id"),
            ["person_id", "organization_id", "patient_id"],
            unique=False,
        )
        batch_op.drop_index(batch_op.f("ix_patient_person_id"))


def downgrade() -> None:
    with op.batch_alter_table("patient", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_patient_person_id"), ["person_id"], unique=False)
        batch_op.drop_index(batch_op.f("ix_patient_person_id_organization_id_patient_id"))
