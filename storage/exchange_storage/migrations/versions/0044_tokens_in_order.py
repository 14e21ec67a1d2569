"""Under a code the resources are in their own order, so that a page of a frequent one is walked"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from exchange_storage.migrations.beside import key_ordered

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None

_BEFORE = ("parameter", "code", "system", "resource_id", "position")
_AFTER = ("parameter", "code", "resource_id", "system", "position")
_WORD = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _ordered(_AFTER)


def downgrade() -> None:
    _ordered(_BEFORE)


def _ordered(columns: tuple[str, ...]) -> None:
    key_ordered("search_token", columns)
    if op.get_context().dialect.name == "postgresql":
        return
    # In SQLite the table itself is in the order of its key.
    op.rename_table("search_token", "search_token_before")
    op.drop_index(op.f("ix_search_token_resource_id"), "search_token_before")
    op.create_table(
        "search_token",
        sa.Column("parameter", _WORD, nullable=False),
        sa.Column("code", _WORD, nullable=False),
        sa.Column("resource_id", _NUMBER, nullable=False),
        sa.Column("system", _WORD, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["resource_id"], ["resource.id"], name=op.f("fk_search_token_resource_id_resource")
        ),
        sa.PrimaryKeyConstraint(*columns, name=op.f("pk_search_token")),
        sqlite_with_rowid=False,
    )
    told = ", ".join(columns)
    op.execute(
        f"INSERT INTO search_token ({told}) SELECT {told} FROM search_token_before "  # noqa: S608
        f"ORDER BY {told}"
    )
    op.drop_table("search_token_before")
    op.create_index(op.f("ix_search_token_resource_id"), "search_token", ["resource_id"])
