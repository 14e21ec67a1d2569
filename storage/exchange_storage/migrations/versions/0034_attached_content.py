"""Content of clinical resources that lies in the object store"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KEY = sa.String(4096).with_variant(sa.String(4096, collation="C"), "postgresql")
_DIGEST = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "attached",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("key", _KEY, nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("resource_id", _NUMBER, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["resource_id"], ["resource.id"], name=op.f("fk_attached_resource_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attached")),
        sa.UniqueConstraint("key", name=op.f("uq_attached_key")),
        sa.UniqueConstraint("resource_id", "version", name=op.f("uq_attached_resource_id_version")),
    )


def downgrade() -> None:
    # What was attached would be lost: its revisions say where it is, and only this release reads it.
    held = op.get_bind().execute(sa.text("SELECT count(*) FROM attached")).scalar_one()
    if held:
        raise RuntimeError(f"{held} versions have their content in the object store")
    op.drop_table("attached")
