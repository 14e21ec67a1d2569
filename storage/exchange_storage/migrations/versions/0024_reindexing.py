"""Walks through all resources, to index them anew; and what of the directory names a patient"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from exchange_storage.records.record import Moment

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "reindexing",
        sa.Column("id", _number(), nullable=False),
        sa.Column("begun", Moment(timezone=True), nullable=False),
        sa.Column("last", _number(), nullable=False),
        sa.Column("position", _number(), nullable=False),
        sa.Column("read", _number(), nullable=False),
        sa.Column("changed", _number(), nullable=False),
        sa.Column("finished", Moment(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reindexing")),
    )
    # What earlier releases took for the directory though it names a patient is its hospital's own
    # at once; a walk then finds out whose it is, and gives back what but looks like a reference.
    sqlite = op.get_context().dialect.name == "sqlite"
    names = (
        "instr(content, CAST('Patient/' AS BLOB)) > 0"
        if sqlite
        else "position('Patient/'::bytea in content) > 0"
    )
    op.execute(
        "UPDATE resource SET is_directory = false WHERE is_directory AND EXISTS ("  # noqa: S608
        " SELECT 1 FROM revision WHERE revision.resource_id = resource.id AND"
        f" revision.version = resource.version AND {names})"
    )
    op.execute(
        "INSERT INTO job (kind, subject, due, asked, attempts, dead, last_error)"
        " SELECT 'reindex', 'resources', MAX(changed), 1, 0, false, '' FROM resource"
        " HAVING MAX(changed) IS NOT NULL ON CONFLICT DO NOTHING"
    )


def downgrade() -> None:
    op.execute("DELETE FROM job WHERE kind = 'reindex'")
    op.drop_table("reindexing")
