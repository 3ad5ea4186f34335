"""Brings a database to the newest revision, by the Alembic scripts in `taskqueue/migrations`.

A newer version may have been there. Its database says from which revision on code can use it, in the column
`compatible_from` beside Alembic's number. Called by one process at a time.
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
    """Runs the missing revisions, all in one transaction.

    Raises UnsuitableFile for a database of a newer version that this code cannot use.
    """
    if not is_usable(connection):
        with connection.begin():
            upgrade(connection)


def is_usable(connection: Connection) -> bool:
    """Whether no revision is missing: the database is as new as this code, or newer and compatible.

    Raises UnsuitableFile for one that is newer and not compatible.
    """
    with connection.begin():
        return _is_usable(connection, ScriptDirectory(str(FOLDER)))


def upgrade(connection: Connection) -> None:
    """Like `migrate`, inside a transaction that the caller has begun."""
    script = ScriptDirectory(str(FOLDER))
    if _is_usable(connection, script):
        return
    current = _current_revision(connection)
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
        return _current_revision(connection)


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _is_usable(connection: Connection, script: ScriptDirectory) -> bool:
    head, current = str(script.get_current_head()), _current_revision(connection)
    if current is None or current in {revision.revision for revision in script.walk_revisions()}:
        return current == head
    row = connection.exec_driver_sql("SELECT * FROM alembic_version").mappings().one()
    compatible_from = row.get("compatible_from")  # none in the database of another program that uses Alembic
    if compatible_from is None or head < compatible_from:
        raise UnsuitableFile(
            f"the database is at revision {current!r}, for versions from revision {compatible_from or current!r} on; "
            f"this version is at {head!r}: a newer version wrote it; start that version, or restore the copy that was "
            "made before the upgrade"
        )
    return True
