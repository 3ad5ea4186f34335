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
    waiting = sa.text("submitted_by IS NOT NULL AND available_at IS NOT NULL")
    _create_index("tasks_submitted_by", "tasks", ["submitted_by", "seq"], owned)
    _create_index("tasks_owned_states", "tasks", ["submitted_by", "algorithm", "state"], owned)
    _create_index("tasks_owned_waiting", "tasks", ["submitted_by", "algorithm", "seq"], waiting)
    _create_index("dead_letters_submitted_by", "dead_letters", ["submitted_by", "dead_id"], owned)
    _create_tokens()
    _create_audit()
    op.create_table(
        "environment_keys",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.String(64), nullable=False),
    )


def _create_index(name: str, table: str, columns: list[str], where: sa.TextClause) -> None:
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)


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
    for name in ("tasks_submitted_by", "tasks_owned_states", "tasks_owned_waiting"):
        op.drop_index(name, "tasks")
    op.drop_index("dead_letters_submitted_by", "dead_letters")
    for table in ("dead_letters", "tasks"):
        op.drop_column(table, "submitted_by")
