"""Translates SQLAlchemy's errors at the border, once, each into a sentence that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError, ResourceClosedError

from taskqueue.errors import QueueUnavailable, StoreUnavailable, TaskQueueError, UnsuitableAddress

#: PostgreSQL's code for a write on a standby.
READ_ONLY = "25006"
#: PostgreSQL's codes for a transaction that was rolled back because of others, and may simply be tried again.
ROLLED_BACK = frozenset({"40001", "40P01"})

DISK_FULL = "the disk with the database is full; free some space, nothing is lost meanwhile"
_TEMPORARY = (
    ("database or disk is full", DISK_FULL),
    ("database is locked", "the database is locked by another process; stop whatever else has the file open"),
    ("attempt to write a readonly", "the database cannot be written; check the owner and mode of its file and folder"),
    ("unable to open", "the database file cannot be opened; check that its folder exists and can be written"),
    ("malformed", "the database file is damaged; stop the service and restore the file from a backup"),
    ("not a database", "the file is not a SQLite database; name another file in DATABASE_URL"),
    ("disk i/o error", "the disk with the database reports an error; check the disk"),
    # PostgreSQL
    ("no space left on device", "the disk of the PostgreSQL server is full; free space, nothing is lost meanwhile"),
    ("too many clients", "the PostgreSQL server has no free connection; raise max_connections or stop some clients"),
    ("connection slots are reserved", "the PostgreSQL server has no free connection; raise its max_connections"),
    ("read-only", "the PostgreSQL server is read-only; name the primary in DATABASE_URL, or wait for the failover"),
    ("starting up", "the PostgreSQL server is starting; it is tried again"),
    ("shutting down", "the PostgreSQL server is shutting down; start it again"),
    ("terminating connection", "the PostgreSQL server closed the connection; it is opened again"),
    ("server closed the connection", "the PostgreSQL server closed the connection; it is opened again"),
    ("no answer within", "the PostgreSQL server does not answer; check whether it is overloaded or frozen"),
    ("connection timeout expired", "the PostgreSQL server does not answer; check DATABASE_URL and that it runs"),
    ("connection refused", "the PostgreSQL server cannot be reached; check DATABASE_URL and that it runs"),
    ("failed to resolve host", "the host of the PostgreSQL server has no address; check DATABASE_URL and the network"),
    ("statement timeout", "the PostgreSQL server took too long for a statement; check its load and its locks"),
)
#: Starting again does not help with these.
_PERMANENT = (
    ("password authentication failed", "PostgreSQL refuses the user or the password; correct them in DATABASE_URL"),
    ("no password supplied", "PostgreSQL asks for a password; put it into DATABASE_URL, or into PGPASSWORD"),
    ("no pg_hba.conf entry", "PostgreSQL admits nobody from here; add a line to the pg_hba.conf of the server"),
    ("already exists", "the database holds tables of another program; name one of its own in DATABASE_URL"),
    ("permission denied", "the user in DATABASE_URL may not make tables there; let it own the database"),
    ("does not support ssl", "the PostgreSQL server offers no TLS; remove sslmode from DATABASE_URL"),
    ("certificate", "the certificate of the PostgreSQL server is not accepted; check sslmode and sslrootcert"),
)
_MISSING = "does not exist"


@contextmanager
def translate_errors(kind: type[QueueUnavailable] | type[StoreUnavailable]) -> Iterator[None]:
    """Raises `kind` for a database that cannot serve now; programming errors pass as they are."""
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError):
        raise
    except DBAPIError as error:
        raise kind(message_for(error)) from error
    except ResourceClosedError as error:
        raise kind("the database is closed") from error


def message_for(error: DBAPIError) -> str:
    """What happened and what to do."""
    cause = str(error.orig)
    for part, words in (*_TEMPORARY, *_PERMANENT):
        if part in cause.lower():
            return words
    return f"the database does not answer as it should: {cause}"


def opening_error(error: DBAPIError) -> TaskQueueError:
    """The error for a server's database that could not be opened.

    StoreUnavailable if it may pass, else UnsuitableAddress; raises `error` itself if it is a programming error.
    """
    cause = str(error.orig)
    if _MISSING in cause and sqlstate(error.orig) is None:
        # said while connecting: of the database, or of the user where no password is asked for
        return UnsuitableAddress(
            f"PostgreSQL says: {cause.rpartition('FATAL:')[2].strip()}; create it, or correct DATABASE_URL"
        )
    for part, words in _PERMANENT:
        if part in cause.lower():
            return UnsuitableAddress(words)
    if isinstance(error, ProgrammingError):
        raise error
    return StoreUnavailable(message_for(error))


def sqlstate(error: BaseException | None) -> str | None:
    """PostgreSQL's five-letter code of an error, if it has one."""
    code: str | None = getattr(error, "sqlstate", None)
    return code
