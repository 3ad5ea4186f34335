"""A database's one writer and its readers, with errors translated."""

from collections.abc import Callable

from sqlalchemy import Connection

from taskqueue.errors import StoreUnavailable
from taskqueue.sql.failures import translated
from taskqueue.sql.readers import Readers
from taskqueue.sql.writer import Value, Writer


class Access:
    """Runs functions of a connection. Raises StoreUnavailable where the database cannot serve."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers

    async def read(self, function: Callable[[Connection], Value]) -> Value:
        with translated(StoreUnavailable):
            return await self._readers.run(function)

    async def write(
        self,
        function: Callable[[Connection], Value],
        *,
        then: Callable[[Value], None] | None = None,
        durable: bool = True,
    ) -> Value:
        """See `Writer.run`."""
        with translated(StoreUnavailable):
            return await self._writer.run(function, then=then, durable=durable)
