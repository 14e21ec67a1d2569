"""Which deliveries a study has"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        op.f("ix_delivery_study_instance_uid"), "delivery", ["study_instance_uid"], unique=False
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_delivery_study_instance_uid"), table_name="delivery")
