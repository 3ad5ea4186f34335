"""Opening a database: tables made once however many start, and sentences where it cannot be."""

import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.exc import ProgrammingError

from taskqueue.errors import StoreUnavailable, UnsuitableAddress
from taskqueue.postgres import open_postgres, store
from taskqueue.postgres.engine import parameters_from, reading_engine
from taskqueue.sql import statements
from taskqueue.sql.tables import metadata

OPEN = """
import asyncio, sys
from taskqueue.postgres import open_postgres

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with open_postgres(sys.argv[1]) as store:
        print(await store.get("a"), flush=True)

asyncio.run(main())
"""


def url_with(url: str, **changes: object) -> str:
    parts = conninfo_to_dict(url) | changes
    return "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**parts)


def opening(url: str):
    async def scenario():
        async with open_postgres(url):
            pass

    return scenario()


def test_processes_that_start_together_make_the_tables_once(database_url, together):
    assert together(OPEN, database_url, 4) == ["None"] * 4


def test_migrated_database_is_what_the_tables_say(run, database_url):
    run(opening(database_url))
    engine = reading_engine(parameters_from(database_url), 1)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_server_that_is_away_is_told_apart_from_a_wrong_address(run, database_url):
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        run(opening(url_with(database_url, port=1)))
    with pytest.raises(StoreUnavailable, match="has no address"):
        run(opening(url_with(database_url, host="no-such-host.invalid")))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"password": "s3cr3t-guess"}, "refuses the user or the password"),
        ({"user": "nobody", "password": "s3cr3t-guess"}, "refuses the user or the password"),
        ({"dbname": "nowhere"}, 'database "nowhere" does not exist; create it'),
    ],
)
def test_wrong_address_is_refused_with_a_sentence_and_without_the_password(run, database_url, changes, says):
    with pytest.raises(UnsuitableAddress, match=says) as raised:
        run(opening(url_with(database_url, **changes)))
    assert "s3cr3t" not in str(raised.value)
    assert conninfo_to_dict(database_url)["password"] not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    "url", ["mysql://u:s3cr3t@h/d", "", "postgresql://u:s3cr3t%zz@h/d", "postgres://u:s3cr3t@h/d?nonsense=1"]
)
def test_url_that_cannot_be_read_is_refused_without_showing_it(run, url):
    with pytest.raises(UnsuitableAddress, match="postgresql://USER:PASSWORD@HOST") as raised:
        run(opening(url))
    assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "POSTGRESQL"])
def test_url_may_be_written_in_each_usual_way(run, database_url, scheme):
    run(opening(scheme + database_url.removeprefix("postgresql") + "?application_name=mine&connect_timeout=3"))


def test_database_with_tables_of_another_program_is_refused(run, database_url, ask):
    ask("CREATE TABLE tasks (x int)")
    with pytest.raises(UnsuitableAddress, match="another program"):
        run(opening(database_url))
    assert ask("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(1,)], "nothing half-made is left"


def test_user_without_rights_is_told_so(run, database_url, ask):
    ask("CREATE ROLE plugplay_guest LOGIN PASSWORD 'guest'")
    try:
        with pytest.raises(UnsuitableAddress, match="may not make tables"):
            run(opening(url_with(database_url, user="plugplay_guest", password="guest")))
    finally:
        ask("DROP ROLE plugplay_guest")


def test_server_with_no_free_connection_is_told_so(run, database_url, ask):
    ask("CREATE ROLE plugplay_few LOGIN PASSWORD 'few' CONNECTION LIMIT 0")
    try:
        with pytest.raises(StoreUnavailable, match="connection"):
            run(opening(url_with(database_url, user="plugplay_few", password="few")))
    finally:
        ask("DROP ROLE plugplay_few")


@pytest.mark.parametrize(
    "statement",
    [
        store.BY_IDS.tasks,
        store.ENDED,
        store.BY_IDS.marked,
        store.BY_IDS.known,
        statements.LOCK_TO_CANCEL,
        store.EXPIRED,
        statements.TASK_BY_ID,
        statements.COUNT_WAITING,
        statements.COUNT_FINISHED,
        statements.OLDEST_WAITING,
        statements.WAITING_OF_ALGORITHM,
        statements.WAITING_OF_TOKEN,
        statements.PROGRESS,
        statements.CANCEL_WAITING,
    ],
)
def test_statement_is_served_by_an_index(run, database_url, statement):
    """Also of an empty table, whose plan is kept when it fills."""
    run(opening(database_url))
    engine = reading_engine(parameters_from(database_url), 1)
    with engine.connect() as connection:
        compiled = statement.compile(dialect=connection.dialect)
        made_up = {"the_ids": "{a,b}", "the_id": "a", "the_algorithm": "upper", "the_one": "a", "new_message": ""}
        values = {name: made_up.get(name, 1) if given is None else given for name, given in compiled.params.items()}
        explained = compiled.construct_expanded_state(values)
        rows = connection.exec_driver_sql(f"EXPLAIN {explained.statement}", explained.parameters)
        plan = "\n".join(row[0] for row in rows)
    engine.dispose()
    assert "Index" in plan, plan
    assert "Seq Scan" not in plan, plan


def test_embedded_store_needs_no_driver_of_a_server():
    program = "import sys, taskqueue.connect; sys.exit('psycopg' in sys.modules or 'pika' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_connections_are_few_and_named(run, database_url, ask):
    async def scenario():
        async with open_postgres(database_url) as store:
            await store.wait_finished("a", 0.3)
            rows = ask(
                "SELECT application_name FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert {name for (name,) in rows} == {"plugplay"}
            assert len(rows) <= 4

    run(scenario())


def test_error_of_a_statement_shows_no_payload(database_url):
    engine = reading_engine(parameters_from(database_url), 1)
    with engine.connect() as connection, pytest.raises(ProgrammingError) as error:
        connection.exec_driver_sql("SELECT 1 FROM nowhere WHERE payload = %(payload)s", {"payload": "my diary"})
    engine.dispose()
    assert "nowhere" in str(error.value)
    assert "diary" not in str(error.value)
