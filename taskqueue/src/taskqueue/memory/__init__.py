"""Queue and store in memory: the twin of the SQLite pair, for tests and for a look without a disk. Nothing survives."""

from taskqueue.clock import Clock
from taskqueue.memory.queue import MemoryQueue
from taskqueue.memory.store import MemoryStore
from taskqueue.memory.tables import Tables

__all__ = ["MemoryQueue", "MemoryStore", "open_memory"]


def open_memory(clock: Clock | None = None) -> tuple[MemoryQueue, MemoryStore]:
    """A queue and a store over the same tables. Close the queue when done."""
    tables = Tables(clock or Clock())
    return MemoryQueue(tables), MemoryStore(tables)
