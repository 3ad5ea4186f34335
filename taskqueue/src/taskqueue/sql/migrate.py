"""Brings a database to the newest revision, by the Alembic scripts in `taskqueue/migrations`.

Called by one process at a time.
"""

import logging
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from taskqueue.errors import UnsuitableFile

_log = logging.getLogger(__name__)

FOLDER = Path(__file__).resolve().parent.parent / "migrations"


def migrate(connection: Connection) -> None:
    """Runs the missing revisions, all in one transaction. Raises UnsuitableFile for a database of a newer version."""
    if not is_current(connection):
        with connection.begin():
            upgrade(connection)


def is_current(connection: Connection) -> bool:
    """Whether the database is at the newest revision."""
    return current_revision(connection) == ScriptDirectory(str(FOLDER)).get_current_head()


def upgrade(connection: Connection) -> None:
    """The same inside a transaction that the caller has begun."""
    script = ScriptDirectory(str(FOLDER))
    current = MigrationContext.configure(connection).get_current_revision()
    if current == script.get_current_head():
        return
    _refuse_newer(script, current)
    if current is not None:
        _log.warning("the database is upgraded from revision %s; a large one takes some minutes", current)
    with EnvironmentContext(
        Config(),
        script,
        fn=lambda revision, _context: script._upgrade_revs("head", revision),
        destination_rev="head",
    ) as environment:
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()


def current_revision(connection: Connection) -> str | None:
    """The database's revision; None if it has none yet."""
    with connection.begin():
        return MigrationContext.configure(connection).get_current_revision()


def needs_upgrade(connection: Connection) -> bool:
    """True for a database with tables that are older than this code. Raises UnsuitableFile for a newer one."""
    script, current = ScriptDirectory(str(FOLDER)), current_revision(connection)
    _refuse_newer(script, current)
    return current is not None and current != script.get_current_head()


def _refuse_newer(script: ScriptDirectory, current: str | None) -> None:
    known = {revision.revision for revision in script.walk_revisions()}
    if current is not None and current not in known:
        raise UnsuitableFile(
            f"the database is at revision {current!r}, which this version does not know: a newer version wrote it; "
            "start that version, or restore the copy that was made before the upgrade"
        )
