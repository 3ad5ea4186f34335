"""Brings a database to the newest revision. Called by one process at a time."""

import logging
import sqlite3
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
    """Runs what is missing, all in one transaction. Raises UnsuitableFile for a database of a newer version."""
    if not is_current(connection):
        with connection.begin():
            upgrade(connection)


def is_current(connection: Connection) -> bool:
    """Whether nothing is missing."""
    return current_revision(connection) == ScriptDirectory(str(FOLDER)).get_current_head()


def upgrade(connection: Connection) -> None:
    """Inside a transaction: runs what is missing. Raises UnsuitableFile for a database of a newer version."""
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
    """The revision the database is at; None when it is empty."""
    with connection.begin():
        return MigrationContext.configure(connection).get_current_revision()


def needs_upgrade(connection: Connection) -> bool:
    """True for a database with tables that are older than this code. Raises UnsuitableFile for a newer one."""
    script, current = ScriptDirectory(str(FOLDER)), current_revision(connection)
    _refuse_newer(script, current)
    return current is not None and current != script.get_current_head()


def is_foreign(connection: Connection) -> bool:
    """Whether a SQLite file has tables, and none of them says which revision of ours it is at."""
    if current_revision(connection) is not None:
        return False
    with connection.begin():
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars()
        return any(not name.startswith(("sqlite_", "alembic_")) for name in names)


def back_up(path: Path, revision: str | None) -> Path:
    """A copy beside the file, made before it is upgraded; an older copy of the same revision stays."""
    copy = path.with_name(f"{path.name}.before-{revision}")
    if not copy.exists():
        partial = copy.with_name(copy.name + ".partial")
        partial.unlink(missing_ok=True)
        source, target = sqlite3.connect(path), sqlite3.connect(partial)
        try:
            source.backup(target)
        finally:
            source.close()
            target.close()
        partial.chmod(0o600)
        partial.rename(copy)
    return copy


def _refuse_newer(script: ScriptDirectory, current: str | None) -> None:
    known = {revision.revision for revision in script.walk_revisions()}
    if current is not None and current not in known:
        raise UnsuitableFile(
            f"the database is at revision {current!r}, which this version does not know: a newer version wrote it; "
            "start that version, or restore the copy that was made before the upgrade"
        )
