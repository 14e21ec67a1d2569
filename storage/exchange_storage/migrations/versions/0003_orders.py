"""Orders, performed steps and tallies"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
moment = sa.DateTime(timezone=True)


def word(length: int) -> sa.String:
    """Text compared byte by byte."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "tally",
        sa.Column("organization_id", number, nullable=False),
        sa.Column("day", word(255), nullable=False),
        sa.Column("source", word(255), nullable=False),
        sa.Column("studies", sa.Integer(), nullable=True),
        sa.Column("instances", sa.Integer(), nullable=True),
        sa.Column("told", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_tally_organization_id")
        ),
        sa.PrimaryKeyConstraint("organization_id", "day", "source", name=op.f("pk_tally")),
    )
    op.create_table(
        "imaging_order",
        sa.Column("id", number, nullable=False),
        sa.Column("organization_id", number, nullable=False),
        sa.Column("patient_id", number, nullable=False),
        sa.Column("accession_number", word(255), nullable=False),
        sa.Column("requested_procedure_id", word(255), nullable=False),
        sa.Column("scheduled_procedure_step_id", word(255), nullable=False),
        sa.Column("study_instance_uid", word(64), nullable=False),
        sa.Column("modality", word(255), nullable=False),
        sa.Column("body_part_examined", word(255), nullable=False),
        sa.Column("procedure_description", word(255), nullable=False),
        sa.Column("station_ae_title", word(255), nullable=False),
        sa.Column("station_name", word(255), nullable=False),
        sa.Column("scheduled_date", word(255), nullable=False),
        sa.Column("scheduled_time", word(255), nullable=False),
        sa.Column("performing_physician_name", word(255), nullable=False),
        sa.Column("referring_physician_name", word(255), nullable=False),
        sa.Column("requesting_physician_name", word(255), nullable=False),
        sa.Column("priority", word(255), nullable=False),
        sa.Column("reason", word(4096), nullable=False),
        sa.Column("status", word(255), nullable=False),
        sa.Column("placed", moment, nullable=False),
        sa.Column("changed", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_imaging_order_organization_id")
        ),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patient.id"], name=op.f("fk_imaging_order_patient_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imaging_order")),
        sa.UniqueConstraint(
            "organization_id",
            "scheduled_procedure_step_id",
            name=op.f("uq_imaging_order_organization_id_scheduled_procedure_step_id"),
        ),
    )
    with op.batch_alter_table("imaging_order", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_imaging_order_accession_number"), ["accession_number"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_imaging_order_organization_id_scheduled_date"),
            ["organization_id", "scheduled_date"],
            unique=False,
        )
        batch_op.create_index(
            batch_op.f("ix_imaging_order_patient_id"), ["patient_id"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_imaging_order_status"), ["status"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_imaging_order_study_instance_uid"), ["study_instance_uid"], unique=False
        )

    op.create_table(
        "performed_step",
        sa.Column("id", number, nullable=False),
        sa.Column("organization_id", number, nullable=False),
        sa.Column("sop_instance_uid", word(64), nullable=False),
        sa.Column("order_id", number, nullable=True),
        sa.Column("study_instance_uid", word(64), nullable=False),
        sa.Column("status", word(255), nullable=False),
        sa.Column("station_ae_title", word(255), nullable=False),
        sa.Column("modality", word(255), nullable=False),
        sa.Column("started", word(255), nullable=False),
        sa.Column("ended", word(255), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("created", moment, nullable=False),
        sa.Column("changed", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["order_id"], ["imaging_order.id"], name=op.f("fk_performed_step_order_id")
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_performed_step_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_performed_step")),
        sa.UniqueConstraint(
            "organization_id",
            "sop_instance_uid",
            name=op.f("uq_performed_step_organization_id_sop_instance_uid"),
        ),
    )
    with op.batch_alter_table("performed_step", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_performed_step_order_id"), ["order_id"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_performed_step_organization_id_started"),
            ["organization_id", "started"],
            unique=False,
        )
        batch_op.create_index(
            batch_op.f("ix_performed_step_study_instance_uid"), ["study_instance_uid"], unique=False
        )

    op.create_table(
        "expected_instance",
        sa.Column("performed_step_id", number, nullable=False),
        sa.Column("sop_instance_uid", word(64), nullable=False),
        sa.Column("series_instance_uid", word(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["performed_step_id"],
            ["performed_step.id"],
            name=op.f("fk_expected_instance_performed_step_id"),
        ),
        sa.PrimaryKeyConstraint(
            "performed_step_id", "sop_instance_uid", name=op.f("pk_expected_instance")
        ),
    )


def downgrade() -> None:
    op.drop_table("tally")
    op.drop_table("expected_instance")
    op.drop_table("performed_step")
    op.drop_table("imaging_order")
