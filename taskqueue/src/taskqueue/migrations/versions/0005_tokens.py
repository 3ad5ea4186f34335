"""Tokens, the audit, and to whom tasks and dead letters belong."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    for table in ("tasks", "dead_letters"):
        op.add_column(table, sa.Column("submitted_by", sa.String(32)))
    owned = sa.text("submitted_by IS NOT NULL")
    op.create_index("tasks_submitted_by", "tasks", ["submitted_by", "seq"], sqlite_where=owned, postgresql_where=owned)
    _create_tokens()
    _create_audit()
    op.create_table(
        "environment_keys",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.String(64), nullable=False),
    )


def _create_tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("seq", _KEY, primary_key=True),
        sa.Column("key_id", sa.String(32), nullable=False, unique=True),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("algorithms", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("last_used_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
    )


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("audit_id", _KEY, primary_key=True),
        sa.Column("call", sa.String(32), nullable=False, unique=True),
        sa.Column("created_at", sa.Double, nullable=False, index=True),
        sa.Column("who", sa.String(32), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("params", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("ids", sa.Text, nullable=False),
        sa.Column("client", sa.Text),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    for table in ("environment_keys", "audit", "tokens"):
        op.drop_table(table)
    op.drop_index("tasks_submitted_by", "tasks")
    for table in ("dead_letters", "tasks"):
        op.drop_column(table, "submitted_by")
