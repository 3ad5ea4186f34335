"""One process owns a SQLite file: a lock that the kernel drops when the process dies, however it dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taskqueue.errors import OwnedElsewhere


@contextmanager
def owner_lock(path: Path) -> Iterator[None]:
    """Holds `<path>.lock`. Raises OwnedElsewhere when another process has it."""
    lock_path = path.with_name(path.name + ".lock")
    descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise OwnedElsewhere(
                f"{path} is already in use by process {owner}; stop that one first, or name another file in "
                "DATABASE_URL (only one process may open a SQLite file: `worker up`)"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        # The file itself stays: removing it would let two processes lock two different files of that name.
        os.close(descriptor)
