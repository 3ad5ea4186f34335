"""PostgreSQL connections: their parameters, and a bound on every wait for the server."""

import re
import time
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from taskqueue.errors import UnsuitableAddress
from taskqueue.sql.errors import READ_ONLY, sqlstate

Value = TypeVar("Value")
#: Connection parameters by libpq's names.
Parameters = dict[str, Any]

CONNECT_SECONDS = 5
#: A server that does not answer a statement within this time counts as away: a frozen one keeps its connections open,
#: and its kernel acknowledges what is sent to it.
ANSWER_SECONDS = 8.0
_SETTINGS = "; ".join(
    (
        # the server's own bounds: on statements whose client has hung up, on transactions whose client is frozen
        "SET statement_timeout = '30s'",
        "SET idle_in_transaction_session_timeout = '10s'",
        # Each of our statements has its index. A plan made while the table is still empty would read all of it, and
        # be kept for the first minute, when the table is full already.
        "SET enable_seqscan = off",
        "SET jit = off",
    )
)
_DEFAULTS: Parameters = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "plugplay",
    # of several hosts the one that can be written, also after a failover
    "target_session_attrs": "read-write",
}
_SCHEME = re.compile(r"(postgresql|postgres)(\+psycopg)?://", re.IGNORECASE)


class NoAnswer(psycopg.OperationalError):
    """The server keeps the connection open and does not answer."""


class BoundedConnection(psycopg.Connection[Any]):
    """Closes itself when the server does not answer; psycopg's own would wait for ever."""

    answer_seconds: float = ANSWER_SECONDS

    def wait(self, gen: PQGen[Value], *args: Any, **options: Any) -> Value:
        return super().wait(_within(self.answer_seconds, gen, self), *args, **options)


def parameters_from(url: str) -> Parameters:
    """The connection parameters of a URL, with defaults.

    Raises UnsuitableAddress, which never shows the URL: it may hold a password.
    """
    found = _SCHEME.match(url)
    try:
        if found is None:
            raise psycopg.ProgrammingError
        return _DEFAULTS | conninfo_to_dict(f"postgresql://{url[found.end() :]}")
    except psycopg.ProgrammingError:
        raise UnsuitableAddress(
            "DATABASE_URL is not an address of a PostgreSQL database; write it like "
            "postgresql://USER:PASSWORD@HOST:5432/DATABASE, with %40 for @ and %2F for / in the password"
        ) from None


def writing_engine(parameters: Parameters) -> Engine:
    """One connection, which connects again by itself."""
    return _engine(parameters, size=1)


def reading_engine(parameters: Parameters, size: int) -> Engine:
    """Connections on which each statement is a transaction of its own."""
    return _engine(parameters, size=size, isolation_level="AUTOCOMMIT")


def connect(parameters: Parameters) -> BoundedConnection:
    connection = BoundedConnection.connect(**parameters, autocommit=True)
    connection.execute(_SETTINGS)
    connection.autocommit = False
    return connection


def has_been_cut(error: DBAPIError) -> bool:
    """Whether the connection was lost, but not because the server does not answer: a new one is worth a try."""
    return error.connection_invalidated and not isinstance(error.orig, NoAnswer)


def _within(seconds: float, gen: PQGen[Value], connection: BoundedConnection) -> PQGen[Value]:
    """The same generator with a deadline; psycopg resumes it ten times a second also if there is nothing to read."""
    deadline = time.monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                connection.close()
                raise NoAnswer(f"no answer within {seconds:g} s")
            wanted = gen.send(ready)
    except StopIteration as done:
        value: Value = done.value
        return value


def _engine(parameters: Parameters, *, size: int, **more: Any) -> Engine:
    engine = create_engine(
        # SQLAlchemy does not know the address, so that none of its texts can show a password
        "postgresql+psycopg://",
        creator=lambda: connect(parameters),
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        pool_reset_on_return=None,
        use_native_hstore=False,
        # keeps payloads and results out of the logs
        hide_parameters=True,
        **more,
    )

    @event.listens_for(engine, "handle_error")
    def mark_standby(context: ExceptionContext) -> None:
        # The primary has become a standby: only a new connection finds the new primary.
        if sqlstate(context.original_exception) == READ_ONLY:
            context.is_disconnect = True

    return engine
