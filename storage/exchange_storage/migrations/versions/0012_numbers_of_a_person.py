"""Numbers of a person"""

from __future__ import annotations

from exchange_storage.migrations.beside import index_made, index_removed

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    index_made("patient", ["person_id", "organization_id", "patient_id"])
    index_removed("patient", ["person_id"])


def downgrade() -> None:
    index_made("patient", ["person_id"])
    index_removed("patient", ["person_id", "organization_id", "patient_id"])
