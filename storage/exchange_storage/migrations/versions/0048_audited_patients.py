"""All patients whom a record of the audit trail is about, and not one of them only

Those whom the details of earlier records name are found too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

revision = "0048"
down_revision = "0047"
branch_labels = None
depends_on = None

_TOGETHER = 1_000
_RECORDS = sa.text(
    "SELECT sequence, patient_id, content FROM audit_record"
    " WHERE sequence > :after AND content LIKE '%\"patients\":[%' ORDER BY sequence LIMIT :limit"
)


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    added = op.create_table(
        "audit_patient",
        sa.Column("patient_id", number, autoincrement=False, nullable=False),
        sa.Column("sequence", number, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("patient_id", "sequence", name=op.f("pk_audit_patient")),
    )
    op.create_index("ix_audit_patient_sequence", "audit_patient", ["sequence", "patient_id"])
    after = 0
    while records := op.get_bind().execute(_RECORDS, {"after": after, "limit": _TOGETHER}).all():
        after = records[-1].sequence
        rows = [
            {"patient_id": patient, "sequence": sequence}
            for sequence, first, content in records
            for patient in set(_named(content)) - {first}
        ]
        if rows:
            op.bulk_insert(added, rows)


def _named(content: str) -> Iterator[int]:
    try:
        named = json.loads(content)["detail"]["patients"]
    except (ValueError, KeyError, TypeError):
        return  # whoever altered it is told of by `exchange audit verify`
    for one in named if isinstance(named, list) else ():
        if type(one) is int:
            yield one


def downgrade() -> None:
    op.drop_table("audit_patient")
