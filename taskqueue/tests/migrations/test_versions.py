"""Revisions only add, so that older code works on; one that does more shuts older code out."""

import io
import re

import pytest
import sqlalchemy as sa
from alembic import op
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from taskqueue.sql import migrate as migrations

REVISIONS = {
    each.revision: each.module for each in reversed([*ScriptDirectory(str(migrations.FOLDER)).walk_revisions()])
}
#: Unique indexes and constraints are not among them: they may refuse what older code writes.
ADDING = re.compile(r"CREATE (TABLE|INDEX) .*|ALTER TABLE \w+ ADD COLUMN ((?!NOT NULL).|.* DEFAULT .*)*", re.DOTALL)
RAISED = "UPDATE alembic_version SET compatible_from = '{}'"


def written_by(change, dialect: str) -> list[str]:
    """The statements of a revision's `upgrade`, without a database."""
    written = io.StringIO()
    context = MigrationContext.configure(dialect_name=dialect, opts={"as_sql": True, "output_buffer": written})
    with Operations.context(context):
        change()
    return [each.strip() for each in written.getvalue().split(";\n") if each.strip()]


def refused(number: str, statements: list[str]) -> list[str]:
    """What shuts out older code without a word."""
    if RAISED.format(number) in statements:
        return []
    return [each for each in statements if not ADDING.fullmatch(each)]


def test_revisions_are_numbered_in_order():
    """They are compared as text."""
    assert list(REVISIONS) == [f"{number:04}" for number in range(1, len(REVISIONS) + 1)]


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
@pytest.mark.parametrize("number", list(REVISIONS)[1:])
def test_revision_only_adds_or_shuts_out_older_code(number, dialect):
    statements = written_by(REVISIONS[number].upgrade, dialect)
    assert statements != []
    assert refused(number, statements) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda: op.drop_table("waiting_notes"),
        lambda: op.drop_index("tasks_claim", "tasks"),
        lambda: op.drop_column("tasks", "history"),
        lambda: op.rename_table("tasks", "jobs"),
        lambda: op.alter_column("tasks", "history", new_column_name="past"),
        lambda: op.alter_column("tasks", "attempt", type_=sa.BigInteger),
        lambda: op.alter_column("tasks", "result", nullable=False),
        lambda: op.add_column("tasks", sa.Column("colour", sa.Text, nullable=False)),
        lambda: op.create_index("tasks_digest", "tasks", ["digest"], unique=True),
        lambda: op.execute("UPDATE tasks SET state = 'waiting'"),
    ],
)
def test_revision_that_does_more_than_add_is_found(change):
    def raising():
        change()
        op.execute(RAISED.format("0009"))

    assert len(refused("0009", written_by(change, "postgresql"))) == 1
    assert refused("0009", written_by(raising, "postgresql")) == []
    assert len(refused("0010", written_by(raising, "postgresql"))) == 2
