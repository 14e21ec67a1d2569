"""The period for which a patient's decision on sharing was given

The release before has it in force without one, as it had all decisions.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0051"
down_revision = "0050"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("since", "until"):
        op.add_column("consent", sa.Column(name, sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("consent", "until")
    op.drop_column("consent", "since")
