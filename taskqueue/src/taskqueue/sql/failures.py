"""Translates SQLAlchemy's errors at the border, once."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError, ResourceClosedError

from taskqueue.errors import QueueUnavailable, StoreUnavailable

_SENTENCES = (
    ("database or disk is full", "the disk with the database is full; free some space, nothing is lost meanwhile"),
    ("database is locked", "the database is locked by another process; stop whatever else has the file open"),
    ("attempt to write a readonly", "the database cannot be written; check the owner and mode of its file and folder"),
    ("unable to open", "the database file cannot be opened; check that its folder exists and can be written"),
    ("malformed", "the database file is damaged; stop the service and restore the file from a backup"),
    ("not a database", "the file is not a SQLite database; name another file in DATABASE_URL"),
    ("disk i/o error", "the disk with the database reports an error; check the disk"),
)


@contextmanager
def translated(kind: type[QueueUnavailable] | type[StoreUnavailable]) -> Iterator[None]:
    """Raises `kind` for a database that cannot serve now; mistakes of our own pass as they are."""
    try:
        yield
    except (IntegrityError, ProgrammingError):
        raise
    except DBAPIError as error:
        raise kind(sentence(error)) from error
    except ResourceClosedError as error:
        raise kind("the database is closed") from error


def sentence(error: DBAPIError) -> str:
    """What happened and what to do."""
    cause = str(error.orig)
    for part, words in _SENTENCES:
        if part in cause.lower():
            return words
    return f"the database does not answer as it should: {cause}"
