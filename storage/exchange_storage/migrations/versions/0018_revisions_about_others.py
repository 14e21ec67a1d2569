"""Revisions about others than the resource is about now, and revisions by their moment"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from exchange_storage.migrations.beside import index_made, index_removed

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "revision",
        sa.Column("elsewhere", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    index_made("revision", ["recorded"])


def downgrade() -> None:
    index_removed("revision", ["recorded"])
    op.drop_column("revision", "elsewhere")
