"""Which image says what of its study and patient otherwise than their records"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0059"
down_revision = "0058"
branch_labels = None
depends_on = None


def _word() -> sa.types.TypeEngine[str]:
    return sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    of = ("patient", "study", "instance")
    op.create_table(
        "said_otherwise",
        sa.Column("id", number, nullable=False),
        *(sa.Column(f"{one}_id", number, nullable=one != "patient") for one in of),
        sa.Column("accession_number", _word(), nullable=True),
        *(sa.Column(one, _word(), nullable=False) for one in ("name", "birth_date", "sex")),
        *(
            sa.ForeignKeyConstraint(
                [f"{one}_id"], [f"{one}.id"], name=op.f(f"fk_said_otherwise_{one}_id_{one}")
            )
            for one in of
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_said_otherwise")),
    )
    for columns in (["patient_id", "name"], ["instance_id"]):
        op.create_index(op.f(f"ix_said_otherwise_{'_'.join(columns)}"), "said_otherwise", columns)


def downgrade() -> None:
    op.drop_table("said_otherwise")
