"""From which revision on code can use the database, beside Alembic's number. Older code does not look at it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column(
        "alembic_version", sa.Column("compatible_from", sa.String(32), nullable=False, server_default=revision)
    )


def downgrade() -> None:
    op.drop_column("alembic_version", "compatible_from")
