"""Routes and deliveries"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
moment = sa.DateTime(timezone=True)


def word(length: int) -> sa.String:
    """Text compared byte by byte."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "route",
        sa.Column("id", number, nullable=False),
        sa.Column("organization_id", number, nullable=False),
        sa.Column("name", word(255), nullable=False),
        sa.Column("modality", word(255), nullable=False),
        sa.Column("body_part", word(255), nullable=False),
        sa.Column("source", word(255), nullable=False),
        sa.Column("hours", word(255), nullable=False),
        sa.Column("entity_id", number, nullable=True),
        sa.Column("url", word(4096), nullable=False),
        sa.Column("created", moment, nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["application_entity.id"], name=op.f("fk_route_entity_id")
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_route_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_route")),
        sa.UniqueConstraint("organization_id", "name", name=op.f("uq_route_organization_id_name")),
    )
    op.create_table(
        "delivery",
        sa.Column("id", number, nullable=False),
        sa.Column("study_instance_uid", word(64), nullable=False),
        sa.Column("route_id", number, nullable=True),
        sa.Column("order_id", number, nullable=True),
        sa.Column("entity_id", number, nullable=True),
        sa.Column("asked", moment, nullable=False),
        sa.Column("delivered", moment, nullable=True),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["application_entity.id"], name=op.f("fk_delivery_entity_id")
        ),
        sa.ForeignKeyConstraint(
            ["order_id"], ["imaging_order.id"], name=op.f("fk_delivery_order_id")
        ),
        sa.ForeignKeyConstraint(["route_id"], ["route.id"], name=op.f("fk_delivery_route_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
        sa.UniqueConstraint(
            "order_id", "study_instance_uid", name=op.f("uq_delivery_order_id_study_instance_uid")
        ),
        sa.UniqueConstraint(
            "route_id", "study_instance_uid", name=op.f("uq_delivery_route_id_study_instance_uid")
        ),
    )
    with op.batch_alter_table("delivery", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_delivery_delivered"), ["delivered"], unique=False)

    op.create_table(
        "delivered",
        sa.Column("delivery_id", number, nullable=False),
        sa.Column("instance_id", number, nullable=False),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["delivery.id"], name=op.f("fk_delivered_delivery_id")
        ),
        sa.PrimaryKeyConstraint("delivery_id", "instance_id", name=op.f("pk_delivered")),
    )


def downgrade() -> None:
    op.drop_table("delivered")
    op.drop_table("delivery")
    op.drop_table("route")
