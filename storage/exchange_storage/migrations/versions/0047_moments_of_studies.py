"""The last change of a study in SQLite as every other moment, without a zone behind it

Compared as text, a moment with its zone came after the same moment without.
"""

from __future__ import annotations

from alembic import op

revision = "0047"
down_revision = "0046"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "UPDATE study SET changed = substr(changed, 1, length(changed) - 6)"
            " WHERE changed LIKE '%+00:00'"
        )


def downgrade() -> None:
    pass
