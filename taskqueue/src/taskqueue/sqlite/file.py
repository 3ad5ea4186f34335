"""The file of a SQLite database: where it may lie, whether it may be used, which process owns it, copies of it."""

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taskqueue.errors import OwnedElsewhere, StoreUnavailable, UnsuitableFile

_log = logging.getLogger(__name__)

#: Locks of these may silently not work, and the write-ahead log needs memory shared by one machine.
NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "ncpfs"}
    | {"fuse.sshfs", "fuse.glusterfs"}
)
#: Folders that a virtual machine or a container shares with its host: usually right with one owner.
SHARED = frozenset({"9p", "virtiofs", "vboxsf", "fuse.grpcfuse", "fakeowner", "prl_fs"})


@contextmanager
def owned_file(given: Path | str) -> Iterator[Path]:
    """The file's absolute path, owned by this process until the end of the block.

    Makes the file (mode 0600) and its folder (0700) if they are missing. Raises OwnedElsewhere, UnsuitableFile or
    StoreUnavailable.
    """
    path = Path(given).absolute()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        kind = filesystem_type(path.parent)
        if kind in NETWORK:
            raise UnsuitableFile(
                f"{path} lies on a network filesystem ({kind}), where SQLite can lose data; name a file on a local "
                "disk in DATABASE_URL, or use PostgreSQL"
            )
        if kind in SHARED:
            _log.warning("%s lies on a folder shared with the host (%s); a local disk is safer and faster", path, kind)
        lost = _lost_content(path)
        if lost is None:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreUnavailable(
            f"{path} cannot be opened: {error.strerror}; check its folder's owner and mode"
        ) from error
    with _owner_lock(path):
        # only now: a file that another process is just making is not lost
        if lost is not None:
            raise UnsuitableFile(lost)
        yield path


def filesystem_type(path: Path, mounts: str | None = None) -> str:
    """The type of the innermost mount that holds `path`; empty if the system does not tell."""
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
    where = os.path.realpath(path)
    best, found = "", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        inside = point == "/" or where == point or where.startswith(point + "/")
        if inside and len(point) >= len(best):
            best, found = point, fields[2]
    return found


def back_up(path: Path, revision: str | None) -> Path:
    """Copies the file beside itself, before it is upgraded; an older copy of the same revision stays."""
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


def _lost_content(path: Path) -> str | None:
    """Why the file must not silently become a new one: it held tasks, and is empty, or gone beside its log.

    An owner writes its lock before it writes the file, so an empty file with a lock was in use.
    """
    size = path.stat().st_size if path.exists() else None
    log, lock = (path.with_name(path.name + ending) for ending in ("-wal", ".lock"))
    left = [each.name for each in (log, lock) if each.exists() and each.stat().st_size]
    if size == 0 and left:
        return (
            f"{path} is empty (0 bytes), but {' and '.join(left)} beside it say that it was in use: a full or damaged "
            "disk leaves it so; restore it from a backup, or delete it and the files that begin with its name to start "
            "with no tasks"
        )
    if size is None and log.name in left:
        return (
            f"{path} is missing, but its log {log.name} is there and may hold tasks; put the file back, or delete the "
            "log to start with no tasks"
        )
    if size is None and left:
        _log.warning("%s is missing though it was in use before; a new one is made, with no tasks", path)
    return None


@contextmanager
def _owner_lock(path: Path) -> Iterator[None]:
    """Locks `<path>.lock`. The kernel drops the lock when the process dies, however it dies."""
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
