"""Each token says whose the resource is, so that it is not looked at for a condition on the patient

What the release before writes meanwhile does not say it, and is looked at as before; `exchange
reindex` has it say so.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from exchange_storage.migrations.beside import key_ordered, rows_changed

revision = "0050"
down_revision = "0049"
branch_labels = None
depends_on = None

_KEY = ("parameter", "code", "resource_id", "system", "position")
_WHOSE = """
    UPDATE search_token SET patient_id = (
        SELECT patient_id FROM resource WHERE resource.id = search_token.resource_id
    )
    WHERE resource_id IN (
        SELECT id FROM resource WHERE id > :behind AND id <= :until
        AND patient_id IS NOT NULL AND NOT has_others
    )
"""


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("search_token", sa.Column("patient_id", number, nullable=True))
    last = op.get_bind().scalar(sa.text("SELECT max(id) FROM resource")) or 0
    rows_changed(_WHOSE, last)
    key_ordered("search_token", _KEY, include=("patient_id",))


def downgrade() -> None:
    key_ordered("search_token", _KEY)
    op.drop_column("search_token", "patient_id")
