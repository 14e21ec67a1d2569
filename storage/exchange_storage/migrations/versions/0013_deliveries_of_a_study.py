"""Which deliveries a study has"""

from __future__ import annotations

from exchange_storage.migrations.beside import index_made, index_removed

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    index_made("delivery", ["study_instance_uid"])


def downgrade() -> None:
    index_removed("delivery", ["study_instance_uid"])
