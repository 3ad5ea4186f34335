"""Migrations: from nothing, from older, from newer, and half-way."""

import json
import shutil
import sqlite3
import stat
from contextlib import contextmanager

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from runnerlib.contract import TaskState
from taskqueue.connect import open_embedded
from taskqueue.errors import UnsuitableFile
from taskqueue.postgres import open_postgres
from taskqueue.postgres.engine import parameters_from
from taskqueue.postgres.engine import writing_engine as postgres_engine
from taskqueue.sql import migrate as migrations
from taskqueue.sql import statements
from taskqueue.sql.tables import metadata
from taskqueue.sqlite import queue_statements
from taskqueue.sqlite.engine import writing_engine
from taskqueue.tasks import DeadAnswer, TaskFilter

NEXT_REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "{number}"
down_revision = "0003"

def upgrade():
    op.add_column("tasks", sa.Column("colour", sa.Text))
    {more}
"""


@pytest.fixture
def connection(tmp_path):
    engine = writing_engine(tmp_path / "tasks.db")
    with engine.connect() as opened:
        yield opened
    engine.dispose()


@pytest.fixture
def newer_code(tmp_path, monkeypatch):
    """Puts one more revision into the program."""

    def add(more: str = "pass", number: str = "0004") -> None:
        folder = tmp_path / "migrations"
        shutil.copytree(migrations.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "versions" / f"{number}_colour.py").write_text(NEXT_REVISION.format(number=number, more=more))
        monkeypatch.setattr(migrations, "FOLDER", folder)

    return add


@pytest.fixture
def older_code(tmp_path, monkeypatch):
    """Takes the revisions after this one out of the program, until it is told to put them back."""

    @contextmanager
    def only_up_to(number: str):
        folder = tmp_path / "migrations"
        shutil.copytree(migrations.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (folder / "versions").glob("0*.py"):
            if path.name[:4] > number:
                path.unlink()
        with monkeypatch.context() as patched:
            patched.setattr(migrations, "FOLDER", folder)
            yield

    return only_up_to


def columns(path) -> list[str]:
    with sqlite3.connect(path) as driver:
        names = [row[1] for row in driver.execute("PRAGMA table_info(tasks)")]
    driver.close()
    return names


def test_migrated_database_is_what_the_tables_say(connection):
    migrations.migrate(connection)
    with connection.begin():
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert migrations.current_revision(connection) == "0003"


def test_migrating_twice_changes_nothing(connection):
    migrations.migrate(connection)
    assert not migrations.needs_upgrade(connection)
    migrations.migrate(connection)
    assert migrations.current_revision(connection) == "0003"


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (queue_statements.CLAIM, "COVERING INDEX tasks_claim (algorithm=? AND available_at=?)"),
        (queue_statements.CLAIM, "COVERING INDEX tasks_claim (algorithm=? AND available_at>? AND available_at<?)"),
        (queue_statements.NEXT_AVAILABLE, "COVERING INDEX tasks_claim (algorithm=? AND available_at>?)"),
        (queue_statements.NEXT_ALGORITHM, "COVERING INDEX tasks_claim (algorithm>?)"),
        (queue_statements.UNCLAIMED, "INDEX tasks_claim (algorithm=? AND available_at>?)"),
        (queue_statements.EXPIRED, "INDEX tasks_expiring (expires_at<?)"),
        (statements.COUNT_WAITING, "COVERING INDEX tasks_claim"),
        (statements.COUNT_FINISHED, "COVERING INDEX tasks_finished"),
        (statements.OLDEST_WAITING, "INDEX tasks_claim (algorithm=? AND available_at=?)"),
    ],
)
def test_statement_is_served_by_its_index(connection, statement, index):
    """SQLite uses a partial index only when it can prove that the query implies its condition."""
    migrations.migrate(connection)
    compiled = statement.compile(dialect=connection.dialect)
    values = compiled.construct_params(dict.fromkeys(compiled.params, 1), _check=False)
    with connection.begin():
        rows = connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN " + compiled.string, tuple(values[name] for name in compiled.positiontup)
        )
        plan = " ".join(row[3] for row in rows)
    assert index in plan, plan


def test_newer_database_is_refused_and_left_alone(run, tmp_path):
    path = tmp_path / "tasks.db"

    async def scenario():
        async with open_embedded(path):
            pass
        with sqlite3.connect(path) as driver:
            driver.execute("UPDATE alembic_version SET version_num = '9999'")
        driver.close()
        with pytest.raises(UnsuitableFile, match="a newer version wrote it"):
            async with open_embedded(path):
                pass
        assert list(tmp_path.glob("*.before-*")) == []

    run(scenario())


def test_older_file_is_copied_and_upgraded_with_its_tasks(run, tmp_path, make_task, newer_code):
    path = tmp_path / "tasks.db"

    async def scenario():
        async with open_embedded(path) as (queue, _):
            await queue.publish([make_task("a")])
        newer_code()
        async with open_embedded(path) as (_, store):
            assert (await store.get("a")).payload == make_task("a").payload
        assert "colour" in columns(path)
        copy = tmp_path / "tasks.db.before-0003"
        assert "colour" not in columns(copy)
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        with sqlite3.connect(copy) as driver:
            assert driver.execute("SELECT id FROM tasks").fetchall() == [("a",)]
        driver.close()

    run(scenario())


def test_migration_that_fails_half_way_leaves_the_file_as_it_was(run, tmp_path, newer_code):
    path = tmp_path / "tasks.db"

    async def scenario():
        async with open_embedded(path):
            pass
        newer_code("raise RuntimeError('half-way')")
        with pytest.raises(RuntimeError, match="half-way"):
            async with open_embedded(path):
                pass
        assert "colour" not in columns(path)
        with sqlite3.connect(path) as driver:
            assert driver.execute("SELECT version_num FROM alembic_version").fetchall() == [("0003",)]
        driver.close()

    run(scenario())


def test_file_of_the_first_revision_is_upgraded_with_its_tasks_and_dead_letters(
    run, tmp_path, older_code, make_task, caplog
):
    path = tmp_path / "tasks.db"
    with older_code("0001"), writing_engine(path).connect() as connection:
        migrations.migrate(connection)
        assert migrations.current_revision(connection) == "0001"
        write_first_revision(connection.connection.driver_connection.execute, make_task("a"))

    async def scenario():
        async with open_embedded(path) as (queue, store):
            await is_served(queue, store, make_task("a"))

    run(scenario())
    assert "revision 0001" in caplog.text
    assert "tasks.db.before-0001" in caplog.text
    with sqlite3.connect(tmp_path / "tasks.db.before-0001") as driver:
        assert driver.execute("SELECT task_id FROM dead_letters").fetchall() == [("a",)]
    driver.close()


def test_database_of_the_first_revision_is_upgraded_with_its_tasks_and_dead_letters(
    run, database_url, ask, older_code, make_task
):
    async def scenario():
        with older_code("0001"):
            async with open_postgres(database_url):
                pass
        assert ask("SELECT version_num FROM alembic_version") == [("0001",)]
        assert ask("SELECT 1 FROM information_schema.columns WHERE column_name = 'replay_attempt'") == []
        write_first_revision(lambda text, values: ask(text.replace("?", "%s"), *values), make_task("a"))
        async with open_postgres(database_url) as store:
            (line,) = await store.dead_letters()
            (revived,) = await store.revive([line.dead_id])
            assert (revived.answer, revived.task.attempt) == (DeadAnswer.REPLAYED, 3)
        assert ask("SELECT version_num FROM alembic_version") == [("0003",)]

    run(scenario())


def test_upgraded_database_is_what_a_new_one_is(run, database_url):
    async def scenario():
        async with open_postgres(database_url):
            pass
        engine = postgres_engine(parameters_from(database_url))
        with engine.connect() as connection, connection.begin():
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        engine.dispose()

    run(scenario())


def write_first_revision(execute, task):
    """A task that has failed in its second attempt, as the first revision has it."""
    history = [
        {"attempt": attempt, "code": "timeout", "message": "slow", "at": "2026-01-01T00:00:00Z"} for attempt in (1, 2)
    ]
    body = b'{"id":"%b","algorithm":"upper","payload":%b}' % (task.id.encode(), task.payload)
    row = (
        task.id,
        "upper",
        task.payload,
        task.digest,
        "failed",
        2,
        1.0,
        2.0,
        2.0,
        "timeout",
        "slow",
        json.dumps(history),
    )
    execute(
        "INSERT INTO tasks (id, algorithm, payload, digest, state, attempt, created_at, updated_at, finished_at, "
        f"error_code, error_message, history) VALUES ({', '.join('?' * len(row))})",
        row,
    )
    letter = (task.id, "upper", "timeout", "slow", body, "{}", json.dumps(history), 2.0)
    execute(
        "INSERT INTO dead_letters (task_id, algorithm, code, message, body, headers, history, created_at) "
        f"VALUES ({', '.join('?' * len(letter))})",
        letter,
    )


async def is_served(queue, store, task):
    (line,) = await store.dead_letters()
    assert (line.task_id, line.attempts) == (task.id, 2)
    assert await queue.replay([line.dead_id]) == [DeadAnswer.REPLAYED]
    row = await store.get(task.id)
    assert (row.state, row.attempt, row.payload) == (TaskState.QUEUED, 3, task.payload)
    assert [each.id for each in await store.list_tasks(TaskFilter())] == [task.id]
