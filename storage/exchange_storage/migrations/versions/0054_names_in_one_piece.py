"""Names that were sent in one piece are found by who tells family from given name

That is by a search key of their own: without it `Li^Wei` had to find `Wei^Li` as well.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from exchange_storage import names

revision = "0054"
down_revision = "0053"
branch_labels = None
depends_on = None

_PATIENT = sa.table("patient", sa.column("id"), sa.column("name"))
_PATIENT_NAME = sa.table(
    "patient_name", sa.column("patient_id"), sa.column("kind"), sa.column("key")
)
_PERSON = sa.table("person_name_key", sa.column("name"), sa.column("key"))
_BATCH = 1000


def upgrade() -> None:
    connection = op.get_bind()
    last = 0
    while patients := connection.execute(
        sa.select(_PATIENT.c.id, _PATIENT.c.name)
        .where(_PATIENT.c.id > last)
        .order_by(_PATIENT.c.id)
        .limit(_BATCH)
    ).fetchall():
        last = patients[-1].id
        op.bulk_insert(
            _PATIENT_NAME,
            [
                {"patient_id": number, "kind": "full", "key": key}
                for number, name in patients
                for key in _in_one_piece(name)
            ],
        )
    persons = connection.scalars(sa.select(_PERSON.c.name).distinct()).fetchall()
    rows = [
        {"name": name, "key": key}
        for name in persons
        for key in sorted({key for one in name.split("\\") for key in _in_one_piece(one)})
    ]
    for start in range(0, len(rows), _BATCH):
        op.bulk_insert(_PERSON, rows[start : start + _BATCH])


def downgrade() -> None:
    for table in (_PATIENT_NAME, _PERSON):
        op.execute(sa.delete(table).where(table.c.key.like("%^")))


def _in_one_piece(name: str) -> list[str]:
    if all("^" in group.strip("^") for group in name.split("=")[:3] if group):
        return []  # reading hanzi takes time
    # A key that was cut off at 255 may end so already.
    return sorted(key for key in names.keys(name).full if key.endswith("^") and len(key) < 255)
