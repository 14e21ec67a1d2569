"""Subscriptions: who is told of what happens, and what is still to be told"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOMENT = sa.DateTime(timezone=True)


def _word(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column(
        "resource", sa.Column("whose", _word(255), server_default=sa.text("''"), nullable=False)
    )
    # Those that were written before nobody was ever told of: only administrators see them.
    op.execute("UPDATE resource SET whose = '-' WHERE kind = 'Subscription'")
    op.create_table(
        "subscription",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("resource_id", _NUMBER, nullable=False),
        sa.Column("logical_id", _word(64), nullable=False),
        sa.Column("organization_id", _NUMBER, nullable=False),
        sa.Column("requester", _word(255), nullable=False),
        sa.Column("role", _word(255), nullable=False),
        sa.Column("purpose", _word(255), nullable=False),
        sa.Column("topic", _word(255), nullable=False),
        sa.Column("filters", sa.JSON(), nullable=False),
        sa.Column("patients", sa.JSON(), nullable=False),
        sa.Column("channel", _word(255), nullable=False),
        sa.Column("endpoint", _word(4096), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("content", _word(255), nullable=False),
        sa.Column("payload", _word(255), nullable=False),
        sa.Column("heartbeat", sa.Integer(), nullable=True),
        sa.Column("timeout", sa.Integer(), nullable=False),
        sa.Column("most", sa.Integer(), nullable=False),
        sa.Column("ends", _MOMENT, nullable=True),
        sa.Column("base", _word(4096), nullable=False),
        sa.Column("state", _word(255), nullable=False),
        sa.Column("since", _MOMENT, nullable=False),
        sa.Column("reason", _word(4096), nullable=False),
        sa.Column("events", _NUMBER, nullable=False),
        sa.Column("told", _NUMBER, nullable=False),
        sa.Column("spoken", _MOMENT, nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organization.id"],
            name=op.f("fk_subscription_organization_id_organization"),
        ),
        sa.ForeignKeyConstraint(
            ["resource_id"], ["resource.id"], name=op.f("fk_subscription_resource_id_resource")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscription")),
        sa.UniqueConstraint("resource_id", name=op.f("uq_subscription_resource_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_subscription_state"), "subscription", ["state"], unique=False)
    op.create_index(
        op.f("ix_subscription_organization_id"), "subscription", ["organization_id"], unique=False
    )
    op.create_table(
        "subscription_event",
        sa.Column("subscription_id", _NUMBER, nullable=False),
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("recorded", _MOMENT, nullable=False),
        sa.Column("kind", _word(255), nullable=False),
        sa.Column("logical_id", _word(64), nullable=False),
        sa.Column("patient_id", _NUMBER, nullable=True),
        sa.Column("created", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscription.id"],
            name=op.f("fk_subscription_event_subscription_id_subscription"),
        ),
        sa.PrimaryKeyConstraint("subscription_id", "number", name=op.f("pk_subscription_event")),
    )
    op.create_index(
        op.f("ix_subscription_event_recorded"), "subscription_event", ["recorded"], unique=False
    )
    op.create_table(
        "happening",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("recorded", _MOMENT, nullable=False),
        sa.Column("kind", _word(255), nullable=False),
        sa.Column("logical_id", _word(64), nullable=False),
        sa.Column("version", _NUMBER, nullable=False),
        sa.Column("patient_id", _NUMBER, nullable=True),
        sa.Column("created", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_happening")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "hook_host",
        sa.Column("organization_id", _NUMBER, nullable=False),
        sa.Column("host", _word(255), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organization.id"],
            name=op.f("fk_hook_host_organization_id_organization"),
        ),
        sa.PrimaryKeyConstraint("organization_id", "host", name=op.f("pk_hook_host")),
    )


def downgrade() -> None:
    op.drop_table("hook_host")
    op.drop_table("happening")
    op.drop_table("subscription_event")
    op.drop_table("subscription")
    op.drop_column("resource", "whose")
