"""Groups that take turns, and tasks that start late."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("task_group", sa.String(64)))
    op.add_column("tasks", sa.Column("not_before", sa.Double))
    waiting = sa.text("task_group IS NOT NULL AND available_at IS NOT NULL")
    op.create_index(
        "tasks_groups",
        "tasks",
        ["algorithm", "available_at", "task_group", "seq"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    out = sa.text("task_group IS NOT NULL AND receipt IS NOT NULL AND delivery_count > 0")
    op.create_index("tasks_groups_out", "tasks", ["algorithm", "task_group"], sqlite_where=out, postgresql_where=out)


def downgrade() -> None:
    op.drop_index("tasks_groups_out", "tasks")
    op.drop_index("tasks_groups", "tasks")
    op.drop_column("tasks", "not_before")
    op.drop_column("tasks", "task_group")
