"""The first schema"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
moment = sa.DateTime(timezone=True)


def word(length: int) -> sa.String:
    """Text compared byte by byte."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sequence", number, nullable=False),
        sa.Column("digest", word(64), nullable=False),
        sa.Column("signature", word(4096), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    op.create_table(
        "audit_record",
        sa.Column("sequence", number, autoincrement=False, nullable=False),
        sa.Column("recorded", moment, nullable=False),
        sa.Column("action", word(255), nullable=False),
        sa.Column("outcome", word(255), nullable=False),
        sa.Column("requester", word(255), nullable=False),
        sa.Column("organization_id", number, nullable=True),
        sa.Column("patient_id", number, nullable=True),
        sa.Column("study_instance_uid", word(64), nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("digest", word(64), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit_record")),
    )
    with op.batch_alter_table("audit_record", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_audit_record_patient_id"), ["patient_id"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_audit_record_recorded"), ["recorded"], unique=False)
        batch_op.create_index(batch_op.f("ix_audit_record_requester"), ["requester"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_audit_record_study_instance_uid"), ["study_instance_uid"], unique=False
        )

    op.create_table(
        "change",
        sa.Column("sequence", number, nullable=False),
        sa.Column("recorded", moment, nullable=False),
        sa.Column("action", word(255), nullable=False),
        sa.Column("instance_id", number, nullable=False),
        sa.Column("study_instance_uid", word(64), nullable=False),
        sa.Column("series_instance_uid", word(64), nullable=False),
        sa.Column("sop_instance_uid", word(64), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_change")),
    )
    with op.batch_alter_table("change", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_change_recorded"), ["recorded"], unique=False)

    op.create_table(
        "job",
        sa.Column("id", number, nullable=False),
        sa.Column("kind", word(255), nullable=False),
        sa.Column("subject", word(255), nullable=False),
        sa.Column("due", moment, nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("leased_until", moment, nullable=True),
        sa.Column("dead", sa.Boolean(), nullable=False),
        sa.Column("last_error", word(4096), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("kind", "subject", name=op.f("uq_job_kind_subject")),
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_job_dead_due"), ["dead", "due"], unique=False)

    op.create_table(
        "organization",
        sa.Column("id", number, nullable=False),
        sa.Column("code", word(255), nullable=False),
        sa.Column("name", word(255), nullable=False),
        sa.Column("credit_code", word(255), nullable=False),
        sa.Column("issuer", word(64), nullable=False),
        sa.Column("registered", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organization")),
        sa.UniqueConstraint("code", name=op.f("uq_organization_code")),
        sa.UniqueConstraint("credit_code", name=op.f("uq_organization_credit_code")),
        sa.UniqueConstraint("issuer", name=op.f("uq_organization_issuer")),
    )
    op.create_table(
        "person",
        sa.Column("id", number, nullable=False),
        sa.Column("resident_id", word(255), nullable=False),
        sa.Column("created", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_person")),
        sa.UniqueConstraint("resident_id", name=op.f("uq_person_resident_id")),
    )
    op.create_table(
        "resource_version",
        sa.Column("resource_type", word(255), nullable=False),
        sa.Column("resource_id", word(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("recorded", moment, nullable=False),
        sa.PrimaryKeyConstraint(
            "resource_type", "resource_id", "version", name=op.f("pk_resource_version")
        ),
    )
    with op.batch_alter_table("resource_version", schema=None) as batch_op:
        batch_op.create_index(
            "uq_resource_version_current",
            ["resource_type", "resource_id"],
            unique=True,
            sqlite_where=sa.text("is_current"),
            postgresql_where=sa.text("is_current"),
        )

    op.create_table(
        "agreement",
        sa.Column("id", number, nullable=False),
        sa.Column("organization_id", number, nullable=False),
        sa.Column("kind", word(255), nullable=False),
        sa.Column("since", moment, nullable=False),
        sa.Column("until", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_agreement_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agreement")),
        sa.UniqueConstraint(
            "organization_id", "kind", "since", name=op.f("uq_agreement_organization_id_kind_since")
        ),
    )
    op.create_table(
        "application_entity",
        sa.Column("id", number, nullable=False),
        sa.Column("organization_id", number, nullable=False),
        sa.Column("title", word(255), nullable=False),
        sa.Column("address", word(255), nullable=False),
        sa.Column("port", sa.Integer(), nullable=True),
        sa.Column("certificate_fingerprint", word(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organization.id"],
            name=op.f("fk_application_entity_organization_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_application_entity")),
        sa.UniqueConstraint("title", "address", name=op.f("uq_application_entity_title_address")),
    )
    with op.batch_alter_table("application_entity", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_application_entity_organization_id"), ["organization_id"], unique=False
        )

    op.create_table(
        "patient",
        sa.Column("id", number, nullable=False),
        sa.Column("organization_id", number, nullable=False),
        sa.Column("patient_id", word(255), nullable=False),
        sa.Column("name", word(255), nullable=False),
        sa.Column("birth_date", word(255), nullable=False),
        sa.Column("sex", word(255), nullable=False),
        sa.Column("address", word(4096), nullable=False),
        sa.Column("telephone", word(255), nullable=False),
        sa.Column("mothers_birth_name", word(255), nullable=False),
        sa.Column("created", moment, nullable=False),
        sa.Column("changed", moment, nullable=False),
        sa.Column("person_id", number, nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_patient_organization_id")
        ),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("fk_patient_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_patient")),
    )
    with op.batch_alter_table("patient", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_patient_birth_date"), ["birth_date"], unique=False)
        batch_op.create_index(batch_op.f("ix_patient_changed"), ["changed"], unique=False)
        batch_op.create_index(batch_op.f("ix_patient_patient_id"), ["patient_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_patient_person_id"), ["person_id"], unique=False)
        batch_op.create_index(
            "uq_patient_number",
            ["organization_id", "patient_id"],
            unique=True,
            sqlite_where=sa.text("patient_id <> ''"),
            postgresql_where=sa.text("patient_id <> ''"),
        )

    op.create_table(
        "user_account",
        sa.Column("id", number, nullable=False),
        sa.Column("name", word(255), nullable=False),
        sa.Column("display_name", word(255), nullable=False),
        sa.Column("role", word(255), nullable=False),
        sa.Column("organization_id", number, nullable=True),
        sa.Column("password_hash", word(4096), nullable=False),
        sa.Column("created", moment, nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_user_account_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_account")),
        sa.UniqueConstraint("name", name=op.f("uq_user_account_name")),
    )
    op.create_table(
        "consent",
        sa.Column("id", number, nullable=False),
        sa.Column("patient_id", number, nullable=False),
        sa.Column("decision", word(255), nullable=False),
        sa.Column("recorded", moment, nullable=False),
        sa.Column("recorded_by", word(255), nullable=False),
        sa.Column("ended", moment, nullable=True),
        sa.ForeignKeyConstraint(["patient_id"], ["patient.id"], name=op.f("fk_consent_patient_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consent")),
    )
    with op.batch_alter_table("consent", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_consent_patient_id"), ["patient_id"], unique=False)

    op.create_table(
        "link",
        sa.Column("id", number, nullable=False),
        sa.Column("patient_id", number, nullable=False),
        sa.Column("person_id", number, nullable=False),
        sa.Column("decision", word(255), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("decided", moment, nullable=False),
        sa.ForeignKeyConstraint(["patient_id"], ["patient.id"], name=op.f("fk_link_patient_id")),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("fk_link_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_link")),
    )
    with op.batch_alter_table("link", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_link_patient_id"), ["patient_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_link_person_id"), ["person_id"], unique=False)

    op.create_table(
        "patient_identifier",
        sa.Column("patient_id", number, nullable=False),
        sa.Column("system", word(255), nullable=False),
        sa.Column("value", word(255), nullable=False),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patient.id"], name=op.f("fk_patient_identifier_patient_id")
        ),
        sa.PrimaryKeyConstraint(
            "patient_id", "system", "value", name=op.f("pk_patient_identifier")
        ),
    )
    with op.batch_alter_table("patient_identifier", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_patient_identifier_value_system"), ["value", "system"], unique=False
        )

    op.create_table(
        "patient_name",
        sa.Column("patient_id", number, nullable=False),
        sa.Column("kind", word(255), nullable=False),
        sa.Column("key", word(255), nullable=False),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patient.id"], name=op.f("fk_patient_name_patient_id")
        ),
        sa.PrimaryKeyConstraint("patient_id", "kind", "key", name=op.f("pk_patient_name")),
    )
    with op.batch_alter_table("patient_name", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_patient_name_key_kind"), ["key", "kind"], unique=False)

    op.create_table(
        "study",
        sa.Column("id", number, nullable=False),
        sa.Column("study_instance_uid", word(64), nullable=False),
        sa.Column("patient_id", number, nullable=False),
        sa.Column("study_date", word(255), nullable=False),
        sa.Column("study_time", word(255), nullable=False),
        sa.Column("accession_number", word(255), nullable=False),
        sa.Column("study_id", word(255), nullable=False),
        sa.Column("study_description", word(255), nullable=False),
        sa.Column("referring_physician_name", word(255), nullable=False),
        sa.Column("received", moment, nullable=False),
        sa.Column("changed", moment, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["patient_id"], ["patient.id"], name=op.f("fk_study_patient_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study")),
        sa.UniqueConstraint("study_instance_uid", name=op.f("uq_study_study_instance_uid")),
    )
    with op.batch_alter_table("study", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_study_accession_number"), ["accession_number"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_study_changed"), ["changed"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_study_patient_id_study_date"), ["patient_id", "study_date"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_study_study_date_id"), ["study_date", "id"], unique=False
        )

    op.create_table(
        "series",
        sa.Column("id", number, nullable=False),
        sa.Column("series_instance_uid", word(64), nullable=False),
        sa.Column("study_id", number, nullable=False),
        sa.Column("modality", word(255), nullable=False),
        sa.Column("series_number", word(255), nullable=False),
        sa.Column("series_description", word(255), nullable=False),
        sa.Column("body_part_examined", word(255), nullable=False),
        sa.Column("laterality", word(255), nullable=False),
        sa.Column("series_date", word(255), nullable=False),
        sa.Column("series_time", word(255), nullable=False),
        sa.Column("performed_procedure_step_start_date", word(255), nullable=False),
        sa.Column("performed_procedure_step_start_time", word(255), nullable=False),
        sa.Column("institution_name", word(255), nullable=False),
        sa.Column("station_name", word(255), nullable=False),
        sa.Column("manufacturer", word(255), nullable=False),
        sa.Column("received", moment, nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_series_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_series")),
        sa.UniqueConstraint("series_instance_uid", name=op.f("uq_series_series_instance_uid")),
    )
    with op.batch_alter_table("series", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_series_study_id"), ["study_id"], unique=False)

    op.create_table(
        "instance",
        sa.Column("id", number, nullable=False),
        sa.Column("sop_instance_uid", word(64), nullable=False),
        sa.Column("sop_class_uid", word(64), nullable=False),
        sa.Column("series_id", number, nullable=True),
        sa.Column("organization_id", number, nullable=False),
        sa.Column("is_primary", sa.Boolean(), nullable=False),
        sa.Column("key", word(4096), nullable=False),
        sa.Column("digest", word(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("transfer_syntax_uid", word(64), nullable=False),
        sa.Column("instance_number", word(255), nullable=False),
        sa.Column("content_date", word(255), nullable=False),
        sa.Column("content_time", word(255), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=True),
        sa.Column("columns", sa.Integer(), nullable=True),
        sa.Column("bits_allocated", sa.Integer(), nullable=True),
        sa.Column("number_of_frames", sa.Integer(), nullable=True),
        sa.Column("character_set", word(255), nullable=False),
        sa.Column("character_set_repair", sa.JSON(), nullable=True),
        sa.Column("received", moment, nullable=False),
        sa.CheckConstraint(
            "series_id IS NOT NULL OR NOT is_primary", name=op.f("ck_instance_primary_has_series")
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_instance_organization_id")
        ),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_instance_series_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance")),
        sa.UniqueConstraint(
            "sop_instance_uid",
            "digest",
            "organization_id",
            name=op.f("uq_instance_sop_instance_uid_digest_organization_id"),
        ),
    )
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_instance_series_id"), ["series_id"], unique=False)
        batch_op.create_index(
            "uq_instance_primary",
            ["sop_instance_uid"],
            unique=True,
            sqlite_where=sa.text("is_primary"),
            postgresql_where=sa.text("is_primary"),
        )

    op.create_table(
        "conflict",
        sa.Column("id", number, nullable=False),
        sa.Column("instance_id", number, nullable=False),
        sa.Column("reason", word(255), nullable=False),
        sa.Column("claimed", sa.JSON(), nullable=False),
        sa.Column("raised", moment, nullable=False),
        sa.Column("settled", moment, nullable=True),
        sa.Column("settlement", word(255), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instance.id"], name=op.f("fk_conflict_instance_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conflict")),
        sa.UniqueConstraint("instance_id", name=op.f("uq_conflict_instance_id")),
    )
    with op.batch_alter_table("conflict", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_conflict_raised"), ["raised"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("conflict", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_conflict_raised"))

    op.drop_table("conflict")
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_instance_primary",
            sqlite_where=sa.text("is_primary"),
            postgresql_where=sa.text("is_primary"),
        )
        batch_op.drop_index(batch_op.f("ix_instance_series_id"))

    op.drop_table("instance")
    with op.batch_alter_table("series", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_series_study_id"))

    op.drop_table("series")
    with op.batch_alter_table("study", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_study_study_date_id"))
        batch_op.drop_index(batch_op.f("ix_study_patient_id_study_date"))
        batch_op.drop_index(batch_op.f("ix_study_changed"))
        batch_op.drop_index(batch_op.f("ix_study_accession_number"))

    op.drop_table("study")
    with op.batch_alter_table("patient_name", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_patient_name_key_kind"))

    op.drop_table("patient_name")
    with op.batch_alter_table("patient_identifier", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_patient_identifier_value_system"))

    op.drop_table("patient_identifier")
    with op.batch_alter_table("link", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_link_person_id"))
        batch_op.drop_index(batch_op.f("ix_link_patient_id"))

    op.drop_table("link")
    with op.batch_alter_table("consent", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_consent_patient_id"))

    op.drop_table("consent")
    op.drop_table("user_account")
    with op.batch_alter_table("patient", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_patient_number",
            sqlite_where=sa.text("patient_id <> ''"),
            postgresql_where=sa.text("patient_id <> ''"),
        )
        batch_op.drop_index(batch_op.f("ix_patient_person_id"))
        batch_op.drop_index(batch_op.f("ix_patient_patient_id"))
        batch_op.drop_index(batch_op.f("ix_patient_changed"))
        batch_op.drop_index(batch_op.f("ix_patient_birth_date"))

    op.drop_table("patient")
    with op.batch_alter_table("application_entity", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_application_entity_organization_id"))

    op.drop_table("application_entity")
    op.drop_table("agreement")
    with op.batch_alter_table("resource_version", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_resource_version_current",
            sqlite_where=sa.text("is_current"),
            postgresql_where=sa.text("is_current"),
        )

    op.drop_table("resource_version")
    op.drop_table("person")
    op.drop_table("organization")
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_job_dead_due"))

    op.drop_table("job")
    with op.batch_alter_table("change", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_change_recorded"))

    op.drop_table("change")
    with op.batch_alter_table("audit_record", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_audit_record_study_instance_uid"))
        batch_op.drop_index(batch_op.f("ix_audit_record_requester"))
        batch_op.drop_index(batch_op.f("ix_audit_record_recorded"))
        batch_op.drop_index(batch_op.f("ix_audit_record_patient_id"))

    op.drop_table("audit_record")
    op.drop_table("audit_head")
