"""Clinical resources, their revisions, and under what they are found"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _word(length: int = 255) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


_VALUES: dict[str, list[tuple[str, sa.types.TypeEngine[Any]]]] = {
    "search_token": [("code", _word()), ("system", _word())],
    "search_string": [("folded", _word()), ("exact", _word())],
    "search_reference": [("target_kind", _word()), ("target", _word())],
    "search_date": [("low", _number()), ("high", _number())],
    "search_quantity": [
        ("low", sa.Double()),
        ("high", sa.Double()),
        ("code", _word()),
        ("system", _word()),
        ("unit", _word()),
    ],
    "search_uri": [("value", _word())],
}


def upgrade() -> None:
    op.create_table(
        "resource",
        sa.Column("id", _number(), nullable=False),
        sa.Column("kind", _word(), nullable=False),
        sa.Column("logical_id", _word(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("organization_id", _number(), nullable=True),
        sa.Column("patient_id", _number(), nullable=True),
        sa.Column("changed", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_directory", sa.Boolean(), nullable=False),
        sa.Column("has_others", sa.Boolean(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organization.id"],
            name=op.f("fk_resource_organization_id_organization"),
        ),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patient.id"], name=op.f("fk_resource_patient_id_patient")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_resource")),
        sa.UniqueConstraint("kind", "logical_id", name=op.f("uq_resource_kind_logical_id")),
    )
    op.create_index(op.f("ix_resource_kind_changed_id"), "resource", ["kind", "changed", "id"])
    op.create_index(op.f("ix_resource_patient_id_kind"), "resource", ["patient_id", "kind"])
    op.create_table(
        "compartment",
        sa.Column("resource_id", _number(), nullable=False),
        sa.Column("patient_id", _number(), nullable=False),
        sa.ForeignKeyConstraint(
            ["resource_id"], ["resource.id"], name=op.f("fk_compartment_resource_id_resource")
        ),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patient.id"], name=op.f("fk_compartment_patient_id_patient")
        ),
        sa.PrimaryKeyConstraint("resource_id", "patient_id", name=op.f("pk_compartment")),
    )
    op.create_index(op.f("ix_compartment_patient_id"), "compartment", ["patient_id"])
    op.create_table(
        "revision",
        sa.Column("id", _number(), nullable=False),
        sa.Column("resource_id", _number(), nullable=False),
        sa.Column("kind", _word(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("interaction", _word(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("recorded", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["resource_id"], ["resource.id"], name=op.f("fk_revision_resource_id_resource")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revision")),
        sa.UniqueConstraint("resource_id", "version", name=op.f("uq_revision_resource_id_version")),
    )
    op.create_index(op.f("ix_revision_kind_id"), "revision", ["kind", "id"])
    for table, columns in _VALUES.items():
        op.create_table(
            table,
            sa.Column("parameter", _word(), nullable=False),
            *(sa.Column(name, kind, nullable=False) for name, kind in columns),
            sa.Column("resource_id", _number(), nullable=False),
            sa.Column("position", sa.Integer(), nullable=False),
            sa.ForeignKeyConstraint(
                ["resource_id"], ["resource.id"], name=op.f(f"fk_{table}_resource_id_resource")
            ),
            sa.PrimaryKeyConstraint(
                "parameter",
                *(name for name, _ in columns),
                "resource_id",
                "position",
                name=op.f(f"pk_{table}"),
            ),
            sqlite_with_rowid=False,
        )
        op.create_index(op.f(f"ix_{table}_resource_id"), table, ["resource_id"])
    op.create_index(op.f("ix_search_date_parameter_high"), "search_date", ["parameter", "high"])


def downgrade() -> None:
    for table in reversed(_VALUES):
        op.drop_table(table)
    op.drop_table("revision")
    op.drop_table("compartment")
    op.drop_table("resource")
