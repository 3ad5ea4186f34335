"""Migrations: from nothing, from older, from newer, and half-way."""

import json
import re
import shutil
import sqlite3
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from runnerlib.contract import TaskState
from taskqueue.connect import open_embedded
from taskqueue.errors import UnsuitableFile
from taskqueue.postgres import open_postgres
from taskqueue.postgres.engine import parameters_from
from taskqueue.postgres.engine import writing_engine as postgres_engine
from taskqueue.sql import groups, statements
from taskqueue.sql import migrate as migrations
from taskqueue.sql.tables import metadata
from taskqueue.sqlite import queue_statements
from taskqueue.sqlite.engine import writing_engine
from taskqueue.tasks import DeadAnswer, Succeeded, TaskFilter

#: This code's newest revision, and that of a newer version.
HEAD = str(ScriptDirectory(str(migrations.FOLDER)).get_current_head())
NEXT = f"{int(HEAD) + 1:04}"
NEXT_REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "{next}"
down_revision = "{head}"

def upgrade():
    op.add_column("tasks", sa.Column("colour", sa.Text))
    {more}
"""


def add_next(folder, more):
    (folder / f"{NEXT}_colour.py").write_text(NEXT_REVISION.format(more=more, head=HEAD, next=NEXT))


@pytest.fixture
def connection(tmp_path):
    engine = writing_engine(tmp_path / "tasks.db")
    with engine.connect() as opened:
        yield opened
    engine.dispose()


#: What makes a newer database unusable for older code.
SHUT_OUT = f"op.execute(\"UPDATE alembic_version SET compatible_from = '{NEXT}'\")"
REFUSED = (
    f"the database is at revision '{NEXT}', for versions from revision '{NEXT}' on; this version is at '{HEAD}': a "
    "newer version wrote it; start that version, or restore the copy that was made before the upgrade"
)

UPGRADE = """
import asyncio, sys
from taskqueue.connect import open_embedded
from taskqueue.errors import OwnedElsewhere
from taskqueue.postgres import open_postgres

async def main(address):
    print("ready", flush=True)
    sys.stdin.readline()
    if address.startswith("postgresql"):
        async with open_postgres(address) as store:
            return await store.get("a")
    while True:
        try:
            async with open_embedded(address) as (_, store):
                return await store.get("a")
        except OwnedElsewhere:
            await asyncio.sleep(0.02)

print(asyncio.run(main(sys.argv[1])).state.value)
"""


@pytest.fixture
def code_with(tmp_path, monkeypatch):
    """Runs the block with other revisions in the program."""

    @contextmanager
    def patched(edit):
        with tempfile.TemporaryDirectory(dir=tmp_path) as parent, monkeypatch.context() as patch:
            folder = Path(parent, "migrations")
            shutil.copytree(migrations.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
            edit(folder / "versions")
            patch.setattr(migrations, "FOLDER", folder)
            yield

    return patched


@pytest.fixture
def newer_code(code_with):
    """One more revision in the program."""

    def add(more: str = "pass"):
        return code_with(lambda folder: add_next(folder, more))

    return add


@pytest.fixture
def older_code(code_with):
    """A program that knows no revision after this one."""

    def remove(folder, number):
        for path in folder.glob("0*.py"):
            if path.name[:4] > number:
                path.unlink()

    return lambda number: code_with(lambda folder: remove(folder, number))


def columns(path) -> list[str]:
    with sqlite3.connect(path) as driver:
        names = [row[1] for row in driver.execute("PRAGMA table_info(tasks)")]
    driver.close()
    return names


def test_migrated_database_is_what_the_tables_say(connection):
    migrations.migrate(connection)
    with connection.begin():
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert migrations.current_revision(connection) == HEAD


def test_migrating_twice_changes_nothing(connection):
    migrations.migrate(connection)
    assert migrations.is_usable(connection)
    migrations.migrate(connection)
    assert migrations.current_revision(connection) == HEAD


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (queue_statements.CLAIM.statement, "COVERING INDEX tasks_claim (algorithm=? AND available_at=?)"),
        (
            queue_statements.CLAIM.statement,
            "INDEX tasks_claim (algorithm=? AND available_at>? AND available_at<?)",
        ),
        (queue_statements.ANY_WITHOUT_GROUP.statement, "INDEX tasks_claim (algorithm=? AND available_at>? AND"),
        (groups.GROUPS, "COVERING INDEX tasks_groups (algorithm=? AND available_at=? AND task_group>?)"),
        (groups.CLAIM_OF_GROUP, "COVERING INDEX tasks_groups (algorithm=? AND available_at=? AND task_group=?)"),
        (groups.NOW_DUE, "COVERING INDEX tasks_groups (algorithm=? AND available_at>? AND available_at<?)"),
        (groups.NEXT_DUE, "COVERING INDEX tasks_groups (algorithm=? AND available_at>?)"),
        (groups.ANY_GROUPED, "COVERING INDEX tasks_groups (algorithm=?"),
        (groups.ANY_OUT, "INDEX tasks_groups_out (algorithm=?"),
        (queue_statements.NEXT_AVAILABLE.statement, "COVERING INDEX tasks_claim (algorithm=? AND available_at>?)"),
        (queue_statements.NEXT_ALGORITHM, "COVERING INDEX tasks_claim (algorithm>?)"),
        (queue_statements.UNCLAIMED, "INDEX tasks_claim (algorithm=? AND available_at>?)"),
        (queue_statements.EXPIRED, "INDEX tasks_expiring (expires_at<?)"),
        (statements.COUNT_WAITING, "COVERING INDEX tasks_claim"),
        (statements.COUNT_FINISHED, "COVERING INDEX tasks_finished"),
        (statements.OLDEST_WAITING, "INDEX tasks_claim (algorithm=? AND available_at=?)"),
        (statements.WAITING_OF_ALGORITHM, "COVERING INDEX tasks_claim (algorithm=? AND available_at>?)"),
        (statements.WAITING_OF_TOKEN, "INDEX tasks_owned_waiting (submitted_by=?)"),
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


def test_file_of_a_newer_and_compatible_version_is_used_as_it_is(run, tmp_path, newer_code, make_task, take_all):
    path = tmp_path / "tasks.db"

    async def scenario():
        with newer_code():
            async with open_embedded(path) as (queue, _):
                await queue.publish([make_task("a")])
        async with open_embedded(path) as (queue, store):
            await queue.publish([make_task("b")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            taken = await take_all(feed, 2)
            assert {each.id for each in taken} == {"a", "b"}
            assert await store.record([Succeeded(each, b"1") for each in taken]) == [True, True]
            await queue.ack(taken)
        with newer_code():
            async with open_embedded(path) as (_, store):
                assert [(await store.get(each)).state for each in "ab"] == [TaskState.SUCCEEDED] * 2
        assert "colour" in columns(path)
        assert list(tmp_path.glob("*.before-*")) == []

    run(scenario())


def test_database_of_a_newer_and_compatible_version_is_used_as_it_is(
    run, database_url, ask, newer_code, make_task, make_delivery
):
    async def scenario():
        async with open_postgres(database_url) as running:
            await running.admit([make_task("a")])
            with newer_code():
                async with open_postgres(database_url) as newer:
                    await newer.admit([make_task("b"), make_task("c")])
            async with open_postgres(database_url) as started_later:
                for older, task_id in ((running, "a"), (started_later, "b"), (running, "c")):
                    assert await older.record([Succeeded(make_delivery(task_id), b"1")]) == [True]
                await started_later.admit([make_task("d")])
                assert [(await running.get(each)).state for each in "abcd"] == [
                    *[TaskState.SUCCEEDED] * 3,
                    TaskState.QUEUED,
                ]
        assert ask("SELECT version_num, compatible_from FROM alembic_version") == [(NEXT, "0004")]

    run(scenario())


def test_file_of_a_newer_and_incompatible_version_is_refused_and_left_alone(run, tmp_path, newer_code):
    path = tmp_path / "tasks.db"

    async def scenario():
        with newer_code(SHUT_OUT):
            async with open_embedded(path):
                pass
        before = path.read_bytes()
        with pytest.raises(UnsuitableFile, match=re.escape(REFUSED)):
            async with open_embedded(path):
                pass
        assert path.read_bytes() == before
        assert list(tmp_path.glob("*.before-*")) == []

    run(scenario())


def test_database_of_a_newer_and_incompatible_version_is_refused_and_left_alone(run, database_url, ask, newer_code):
    async def scenario():
        with newer_code(SHUT_OUT):
            async with open_postgres(database_url):
                pass
        with pytest.raises(UnsuitableFile, match=re.escape(REFUSED)):
            async with open_postgres(database_url):
                pass
        assert ask("SELECT version_num, compatible_from FROM alembic_version") == [(NEXT, NEXT)]

    run(scenario())


@pytest.mark.parametrize("number", ["0003abcdef12", "ae1027a6acf2"])
def test_revision_of_another_program_is_refused(connection, number):
    with connection.begin():
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{number}')")
    with pytest.raises(UnsuitableFile, match=f"is at revision '{number}', for versions from revision '{number}' on"):
        migrations.migrate(connection)


def test_older_file_is_copied_and_upgraded_with_its_tasks(run, tmp_path, make_task, newer_code):
    path = tmp_path / "tasks.db"

    async def scenario():
        async with open_embedded(path) as (queue, _):
            await queue.publish([make_task("a")])
        with newer_code():
            async with open_embedded(path) as (_, store):
                assert (await store.get("a")).payload == make_task("a").payload
        assert "colour" in columns(path)
        copy = tmp_path / f"tasks.db.before-{HEAD}"
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
        with newer_code("raise RuntimeError('half-way')"), pytest.raises(RuntimeError, match="half-way"):
            async with open_embedded(path):
                pass
        assert "colour" not in columns(path)
        with sqlite3.connect(path) as driver:
            assert driver.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
        driver.close()

    run(scenario())


@pytest.mark.parametrize("number", ["0001", "0003"])
def test_file_of_an_older_revision_is_upgraded_with_its_tasks_and_dead_letters(
    run, tmp_path, older_code, make_task, caplog, number
):
    path = tmp_path / "tasks.db"
    make_older_file(path, older_code(number), make_task("a"))

    async def scenario():
        async with open_embedded(path) as (queue, store):
            await is_served(queue, store, make_task("a"))

    run(scenario())
    assert f"revision {number}" in caplog.text
    assert f"tasks.db.before-{number}" in caplog.text
    with sqlite3.connect(tmp_path / f"tasks.db.before-{number}") as driver:
        assert driver.execute("SELECT task_id FROM dead_letters").fetchall() == [("a",)]
        assert driver.execute("SELECT * FROM alembic_version").fetchall() == [(number,)]
    driver.close()


@pytest.mark.parametrize("number", ["0001", "0003"])
def test_database_of_an_older_revision_is_upgraded_with_its_tasks_and_dead_letters(
    run, database_url, ask, older_code, make_task, number
):
    make_older_database(database_url, ask, older_code(number), make_task("a"))

    async def scenario():
        assert ask("SELECT * FROM alembic_version") == [(number,)]
        async with open_postgres(database_url) as store:
            (line,) = await store.dead_letters()
            (revived,) = await store.revive([line.dead_id])
            assert (revived.answer, revived.task.attempt) == (DeadAnswer.REPLAYED, 3)
        assert ask("SELECT * FROM alembic_version") == [(HEAD, "0004")]

    run(scenario())


def test_processes_that_start_together_upgrade_a_file_once(tmp_path, older_code, make_task, together):
    path = tmp_path / "tasks.db"
    make_older_file(path, older_code("0003"), make_task("a"))
    assert together(UPGRADE, str(path), 2) == ["failed"] * 2
    assert [each.name for each in tmp_path.glob("*.before-*")] == ["tasks.db.before-0003"]


def test_processes_that_start_together_upgrade_a_database_once(database_url, ask, older_code, make_task, together):
    make_older_database(database_url, ask, older_code("0003"), make_task("a"))
    assert together(UPGRADE, database_url, 4) == ["failed"] * 4
    assert ask("SELECT * FROM alembic_version") == [(HEAD, "0004")]


def test_upgraded_database_is_what_a_new_one_is(run, database_url):
    async def scenario():
        async with open_postgres(database_url):
            pass
        engine = postgres_engine(parameters_from(database_url))
        with engine.connect() as connection, connection.begin():
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        engine.dispose()

    run(scenario())


def make_older_file(path, older_code, task):
    engine = writing_engine(path)
    with older_code, engine.connect() as connection:
        migrations.migrate(connection)
        write_first_revision(connection.connection.driver_connection.execute, task)
    engine.dispose()


def make_older_database(database_url, ask, older_code, task):
    engine = postgres_engine(parameters_from(database_url))
    with older_code, engine.connect() as connection:
        migrations.migrate(connection)
    engine.dispose()
    write_first_revision(lambda text, values: ask(text.replace("?", "%s"), *values), task)


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
