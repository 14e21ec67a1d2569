"""Search keys of the names of staff, and who performed and operated of a series

Of series that are held already it is not known; the names in other records get their keys here.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from exchange_storage import names

revision = "0037"
down_revision = "0035"
branch_labels = None
depends_on = None

_WORD = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
_NAMED = (
    ("patient", "mothers_birth_name"),
    ("study", "referring_physician_name"),
    ("imaging_order", "referring_physician_name"),
    ("imaging_order", "requesting_physician_name"),
    ("imaging_order", "performing_physician_name"),
)
_PERFORMER = "ScheduledHumanPerformersSequence.HumanPerformerName"


def upgrade() -> None:
    keys = op.create_table(
        "person_name_key",
        sa.Column("name", _WORD, nullable=False),
        sa.Column("key", _WORD, nullable=False),
        sa.PrimaryKeyConstraint("name", "key", name=op.f("pk_person_name_key")),
    )
    op.create_index(op.f("ix_person_name_key_key_name"), "person_name_key", ["key", "name"])
    connection = op.get_bind()
    found: set[str] = set()
    for table, column in _NAMED:
        told = sa.table(table, sa.column(column))
        found |= set(connection.scalars(sa.select(told.c[column]).distinct()))
    told = sa.table("workitem_key", sa.column("path"), sa.column("value"))
    wanted = sa.select(told.c.value).where(told.c.path == _PERFORMER).distinct()
    found |= set(connection.scalars(wanted))
    rows = [
        {"name": name, "key": key}
        for name in sorted(found - {""})
        for key in sorted({key[:255] for one in name.split("\\") for key in names.keys(one).full})
    ]
    for start in range(0, len(rows), 1000):
        op.bulk_insert(keys, rows[start : start + 1000])
    # Last: from here on to the end of the transaction PostgreSQL keeps others from the table.
    for column in ("performing_physician_name", "operators_name"):
        op.add_column(
            "series", sa.Column(column, _WORD, server_default=sa.text("''"), nullable=False)
        )


def downgrade() -> None:
    op.drop_table("person_name_key")
    with op.batch_alter_table("series") as batch_op:
        batch_op.drop_column("operators_name")
        batch_op.drop_column("performing_physician_name")
