"""Workitems, those who watch them, and what they are told"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
moment = sa.DateTime(timezone=True)


def word(length: int) -> sa.String:
    """Text compared byte by byte."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "workitem",
        sa.Column("id", number, nullable=False),
        sa.Column("organization_id", number, nullable=False),
        sa.Column("patient_id", number, nullable=True),
        sa.Column("assigned_id", number, nullable=True),
        sa.Column("sop_instance_uid", word(64), nullable=False),
        sa.Column("study_instance_uid", word(64), nullable=False),
        sa.Column("state", word(255), nullable=False),
        sa.Column("transaction_uid", word(64), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("created", moment, nullable=False),
        sa.Column("changed", moment, nullable=False),
        sa.Column("ended", moment, nullable=True),
        sa.Column("deleted", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_workitem_organization_id")
        ),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patient.id"], name=op.f("fk_workitem_patient_id")
        ),
        sa.ForeignKeyConstraint(
            ["assigned_id"], ["organization.id"], name=op.f("fk_workitem_assigned_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workitem")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_workitem_sop_instance_uid")),
    )
    for columns in (
        ["organization_id", "state", "id"],
        ["assigned_id", "state", "id"],
        ["patient_id"],
        ["ended"],
        ["study_instance_uid"],
    ):
        name = op.f(f"ix_workitem_{'_'.join(columns)}")
        op.create_index(name, "workitem", columns, unique=False)

    op.create_table(
        "workitem_key",
        sa.Column("workitem_id", number, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("path", word(255), nullable=False),
        sa.Column("item", sa.Integer(), nullable=False),
        sa.Column("value", word(255), nullable=False),
        sa.ForeignKeyConstraint(
            ["workitem_id"], ["workitem.id"], name=op.f("fk_workitem_key_workitem_id")
        ),
        sa.PrimaryKeyConstraint("workitem_id", "position", name=op.f("pk_workitem_key")),
    )
    op.create_index(
        op.f("ix_workitem_key_path_value"), "workitem_key", ["path", "value"], unique=False
    )

    op.create_table(
        "workitem_subscription",
        sa.Column("workitem_id", number, nullable=False),
        sa.Column("organization_id", number, nullable=False),
        sa.Column("subscriber", word(255), nullable=False),
        sa.Column("deletion_lock", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workitem_id"], ["workitem.id"], name=op.f("fk_workitem_subscription_workitem_id")
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organization.id"],
            name=op.f("fk_workitem_subscription_organization_id"),
        ),
        sa.PrimaryKeyConstraint(
            "workitem_id", "organization_id", "subscriber", name=op.f("pk_workitem_subscription")
        ),
    )
    op.create_index(
        op.f("ix_workitem_subscription_organization_id_subscriber"),
        "workitem_subscription",
        ["organization_id", "subscriber"],
        unique=False,
    )

    op.create_table(
        "worklist_subscription",
        sa.Column("organization_id", number, nullable=False),
        sa.Column("subscriber", word(255), nullable=False),
        sa.Column("filtered", sa.Boolean(), nullable=False),
        sa.Column("keys", sa.JSON(), nullable=False),
        sa.Column("deletion_lock", sa.Boolean(), nullable=False),
        sa.Column("requester", word(255), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organization.id"],
            name=op.f("fk_worklist_subscription_organization_id"),
        ),
        sa.PrimaryKeyConstraint(
            "organization_id", "subscriber", "filtered", name=op.f("pk_worklist_subscription")
        ),
    )

    op.create_table(
        "workitem_event",
        sa.Column("id", number, nullable=False),
        sa.Column("organization_id", number, nullable=False),
        sa.Column("subscriber", word(255), nullable=False),
        sa.Column("workitem_id", number, nullable=False),
        sa.Column("recorded", moment, nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_workitem_event_organization_id")
        ),
        sa.ForeignKeyConstraint(
            ["workitem_id"], ["workitem.id"], name=op.f("fk_workitem_event_workitem_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workitem_event")),
        sqlite_autoincrement=True,
    )
    for columns in (["organization_id", "subscriber", "id"], ["recorded"], ["workitem_id"]):
        name = op.f(f"ix_workitem_event_{'_'.join(columns)}")
        op.create_index(name, "workitem_event", columns, unique=False)


def downgrade() -> None:
    op.drop_table("workitem_event")
    op.drop_table("worklist_subscription")
    op.drop_table("workitem_subscription")
    op.drop_table("workitem_key")
    op.drop_table("workitem")
