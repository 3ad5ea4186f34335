"""Replays of dead letters, and retention of those on which somebody has decided."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("dead_letters", sa.Column("replay_attempt", sa.Integer))
    # Nothing was replayed or discarded before this revision: both begin empty.
    for name in ("replayed", "discarded"):
        decided = sa.text(f"{name}_at IS NOT NULL")
        op.create_index(
            f"dead_letters_{name}",
            "dead_letters",
            [f"{name}_at"],
            sqlite_where=decided,
            postgresql_where=decided,
        )


def downgrade() -> None:
    op.drop_index("dead_letters_discarded", "dead_letters")
    op.drop_index("dead_letters_replayed", "dead_letters")
    op.drop_column("dead_letters", "replay_attempt")
