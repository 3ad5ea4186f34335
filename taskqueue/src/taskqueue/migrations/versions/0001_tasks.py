"""Tasks and dead letters."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    _create_tasks()
    _create_task_indexes()
    _create_dead_letters()


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("seq", _KEY, primary_key=True),
        sa.Column("id", sa.String(128), nullable=False, unique=True),
        sa.Column("algorithm", sa.String(63), nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("available_at", sa.Double),
        sa.Column("receipt", sa.BigInteger),
        sa.Column("delivery_count", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("finished_at", sa.Double),
        sa.Column("expires_at", sa.Double),
        sa.Column("result", sa.LargeBinary),
        sa.Column("error_code", sa.String(32)),
        sa.Column("error_message", sa.Text),
        sa.Column("history", sa.Text),
        sa.Column("placed_attempt", sa.Integer),
        sa.Column("placed_runner", sa.Text),
        sa.Column("placed_boot", sa.Text),
        sa.Column("runner", sa.Text),
        sa.Column("cancel_requested", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("progress_fraction", sa.Double),
        sa.Column("progress_message", sa.Text),
        sa.Column("replays", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("reply_to", sa.Text),
        sa.Column("correlation_id", sa.Text),
    )


def _create_task_indexes() -> None:
    waiting = sa.text("available_at IS NOT NULL")
    op.create_index(
        "tasks_claim",
        "tasks",
        ["algorithm", "available_at", "seq", "state"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    finished = sa.text("finished_at IS NOT NULL")
    op.create_index(
        "tasks_finished",
        "tasks",
        ["finished_at", "algorithm", "state"],
        sqlite_where=finished,
        postgresql_where=finished,
    )
    expiring = sa.text("expires_at IS NOT NULL AND available_at IS NOT NULL")
    op.create_index("tasks_expiring", "tasks", ["expires_at"], sqlite_where=expiring, postgresql_where=expiring)


def _create_dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("dead_id", _KEY, primary_key=True),
        sa.Column("task_id", sa.String(128), nullable=False, index=True),
        sa.Column("algorithm", sa.String(63), nullable=False),
        sa.Column("code", sa.String(32), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("traceback", sa.Text),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("history", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("replayed_at", sa.Double),
        sa.Column("discarded_at", sa.Double),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("dead_letters")
    op.drop_table("tasks")
