"""What tokens may send at most, and algorithms that are paused."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("tokens", sa.Column("rate_per_second", sa.Double))
    op.add_column("tokens", sa.Column("burst", sa.Integer))
    op.add_column("tokens", sa.Column("bytes_per_second", sa.BigInteger))
    op.add_column("tokens", sa.Column("most_waiting", sa.Integer))
    op.create_table(
        "paused_algorithms",
        sa.Column("algorithm", sa.String(63), primary_key=True),
        sa.Column("paused_by", sa.Text, nullable=False),
        sa.Column("paused_at", sa.Double, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("paused_algorithms")
    for name in ("most_waiting", "bytes_per_second", "burst", "rate_per_second"):
        op.drop_column("tokens", name)
