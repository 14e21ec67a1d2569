"""Indexes hold all that is asked of them: of a resource's tokens, references, dates, and of names"""

from __future__ import annotations

from exchange_storage.migrations.beside import index_made, index_removed, index_replaced

revision = "0033"
down_revision = "0036"
branch_labels = None
depends_on = None

HELD = {
    "search_token": ["parameter", "code", "system"],
    "search_reference": ["parameter", "target_kind", "target"],
    "search_date": ["parameter", "low", "high"],
}


def upgrade() -> None:
    for table, columns in HELD.items():
        index_replaced(table, ["resource_id"], include=columns)
    index_made("patient_name", ["key", "kind", "patient_id"])
    index_removed("patient_name", ["key", "kind"])


def downgrade() -> None:
    index_made("patient_name", ["key", "kind"])
    index_removed("patient_name", ["key", "kind", "patient_id"])
    for table in HELD:
        index_replaced(table, ["resource_id"])
