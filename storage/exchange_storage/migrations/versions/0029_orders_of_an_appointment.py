"""An appointment leads to its orders"""

from __future__ import annotations

from exchange_storage.migrations.beside import index_made, index_removed

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    index_made("imaging_order", ["appointment"])


def downgrade() -> None:
    index_removed("imaging_order", ["appointment"])
