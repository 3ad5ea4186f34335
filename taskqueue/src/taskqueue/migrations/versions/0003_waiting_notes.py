"""Why tasks of an algorithm wait that runners could take."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "waiting_notes",
        sa.Column("algorithm", sa.String(63), primary_key=True),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("noted_at", sa.Double, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("waiting_notes")
