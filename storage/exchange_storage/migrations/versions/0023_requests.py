"""The ServiceRequest that an order is, and the Appointment that says when"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from exchange_storage.migrations.beside import index_made, index_removed

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def _uid() -> sa.types.TypeEngine[str]:
    return sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")


def upgrade() -> None:
    with op.batch_alter_table("imaging_order") as batch_op:
        batch_op.add_column(
            sa.Column("request", _uid(), server_default=sa.text("''"), nullable=False)
        )
        batch_op.add_column(
            sa.Column("is_requested", sa.Boolean(), server_default=sa.false(), nullable=False)
        )
        batch_op.add_column(
            sa.Column("appointment", _uid(), server_default=sa.text("''"), nullable=False)
        )
    sqlite = op.get_context().dialect.name == "sqlite"
    anything = "lower(hex(randomblob(16)))" if sqlite else "md5(random()::text || id::text)"
    op.execute(f"UPDATE imaging_order SET request = 'order-' || {anything}")  # noqa: S608
    # A worker tells of them in FHIR, as of those that come.
    op.execute(
        "INSERT INTO job (kind, subject, due, asked, attempts, dead, last_error)"
        " SELECT 'request', CAST(id AS VARCHAR(20)), changed, 1, 0, false, '' FROM imaging_order"
        " WHERE true ON CONFLICT DO NOTHING"
    )
    index_made("imaging_order", ["request"])


def downgrade() -> None:
    op.execute("DELETE FROM job WHERE kind = 'request'")
    index_removed("imaging_order", ["request"])
    with op.batch_alter_table("imaging_order") as batch_op:
        batch_op.drop_column("appointment")
        batch_op.drop_column("is_requested")
        batch_op.drop_column("request")
