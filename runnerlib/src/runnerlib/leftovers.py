"""What handlers leave behind: temporary files, and processes that they started. Neither outlives its worker process.

Each worker process has a folder of its own as ``TMPDIR``. Whatever a handler starts (by exec: a mere fork shows the
variables that its parent was started with) inherits that variable, also when it leaves the process group (``setsid``)
or is adopted by another parent, so that the folder's path identifies it. The folders of one runner lie in a folder that
it locks; those of a killed runner are found because their lock is free.
"""

import fcntl
import itertools
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runnerlib.service.logs import get_logger

log = get_logger(__name__)

_PREFIX = "plugplay-tmp-"
#: The names that :func:`tempfile.mkdtemp` makes; with a dot until it is locked.
_ROOT = re.compile(rf"\.?{_PREFIX}[a-z0-9_]{{8}}")
#: A folder that is not locked after so long never will be: its process died.
_LOCKED_WITHIN_SECONDS = 60
_PROCESSES = "/proc"
#: Processes that start others while they are being ended are looked for again, this many times.
_ROUNDS = 5
#: multiprocessing makes such a folder once in a process, and fails when it is gone.
_NEEDED_BY_PYTHON = "pymp-"
#: Two changes within so long may have the same time: kernels stamp files by their timer.
_TIMESTAMP_NS = 20_000_000
#: How a folder is opened.
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class TemporaryFolders:
    """The folders of one runner's worker processes. :meth:`open` also removes what killed runners left."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self._lock = -1
        self._count = 0
        self._owner = -1

    def open(self) -> None:
        """Without a place for temporary files, worker processes work without folders of their own."""
        self._owner = os.getpid()
        try:
            _remove_abandoned(Path(tempfile.gettempdir()))
            made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
            # The lock also keeps systemd-tmpfiles from removing what is old in there.
            self._lock = os.open(made, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It gets its name once it is locked, so that no other runner finds it unlocked.
            root = made.rename(made.with_name(made.name.removeprefix(".")))
        except OSError as error:
            log.warning("there is no place for temporary files; set TMPDIR to a folder", error=str(error))
        else:
            self._root = root

    def new(self) -> Path | None:
        """An empty folder; None where there is no place for one."""
        if self._root is None:
            return None
        self._count += 1
        folder = self._root / str(self._count)
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            log.warning("a worker process has no folder for temporary files", error=str(error))
            return None
        return folder

    def close(self) -> None:
        """Ends what is still running with a folder of ours, and removes all of them; in a forked copy does nothing."""
        if self._owner != os.getpid():
            return
        if self._root is not None:
            clear_up(self._root)
            self._root = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def environment_with(folder: Path | None) -> dict[str, str]:
    """The environment of a worker process: the whole of this one's, with `folder` as its TMPDIR."""
    # Read here and not in settings: a child needs all variables as they are at its start, the author's changes too.
    return dict(os.environ) if folder is None else {**os.environ, "TMPDIR": str(folder)}


@contextmanager
def own_temporary_folder() -> Iterator[None]:
    """For commands that call handlers in their own process: a TMPDIR for it and for what it starts.

    At the end, files that are left there are removed, and processes that were started by exec are ended.
    """
    folders = TemporaryFolders()
    folders.open()
    before, chosen = os.environ.get("TMPDIR"), tempfile.tempdir
    try:
        if (folder := folders.new()) is not None:
            os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        yield
    finally:
        tempfile.tempdir = chosen
        os.environ.pop("TMPDIR", None)
        if before is not None:
            os.environ["TMPDIR"] = before
        folders.close()


class OwnFolder:
    """The folder that this worker process has as TMPDIR, emptied between calls."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._opened: int | None = None
        self._kept: frozenset[str] = frozenset()
        self._unused_since = -1

    def keep_what_is_there(self) -> None:
        """What was made while the adapter loaded belongs to the process, not to a call."""
        self._kept = frozenset(self._names())
        with suppress(OSError):
            self._opened = None if self._folder is None else os.open(self._folder, _FOLDER)

    def left(self) -> list[str]:
        """Names of what calls have left in it. It looks inside only when the folder has changed."""
        changed_at = self._changed_at()
        if changed_at == self._unused_since:
            return []
        names = [name for name in self._names() if name not in self._kept and not name.startswith(_NEEDED_BY_PYTHON)]
        if not names and time.time_ns() - changed_at > _TIMESTAMP_NS:
            self._unused_since = changed_at
        return names

    def empty(self) -> None:
        for name in self.left():
            remove(Path(self._folder or "", name))

    def _changed_at(self) -> int:
        try:
            if self._opened is not None:
                # Half the time of a look-up by the path.
                found = os.stat(self._opened)
                if found.st_nlink:
                    return found.st_mtime_ns
                # Removed; there may be another one in its place. Not closed: the number may be a handler's file by now.
                self._opened = None
            return -1 if self._folder is None else os.stat(self._folder).st_mtime_ns
        except OSError:
            self._opened = None
            return -1

    def _names(self) -> list[str]:
        with suppress(OSError):
            return [] if self._folder is None else os.listdir(self._folder)
        return []


def clear_up(folder: Path) -> None:
    """Ends the processes that were started with `folder` as their TMPDIR, and removes it."""
    end_processes(folder)
    remove(folder)


def remove(path: Path) -> None:
    """Removes a file or a whole folder, as far as that is possible. Never raises."""
    if os.path.islink(path) or not os.path.isdir(path):
        with suppress(OSError):
            path.unlink()
        return
    with suppress(OSError, RecursionError):
        shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        # Too deep for it, or a folder without rights for its owner keeps what is in it.
        with suppress(OSError):
            os.chmod(path, 0o700)
            _remove_inner(path)
            path.rmdir()


def _remove_inner(top: Path) -> None:
    """Empties a folder of any depth: each one in it comes up to the top before its turn."""
    opened = os.open(top, _FOLDER)
    try:
        # No other name there is as high a number; numbers, since those are what a runner's folder may hold.
        names = (str(number) for number in itertools.count(time.time_ns()))
        is_going_on = True
        while is_going_on:
            removed = [_remove_one(name, opened, names) for name in _remove_files(opened)]
            is_going_on = any(removed)
    finally:
        os.close(opened)


def _remove_one(name: str, top: int, names: Iterator[str]) -> bool:
    """Removes a folder in the top one; what folders it has become its neighbours."""
    with suppress(OSError):
        os.chmod(name, 0o700, dir_fd=top)
        opened = os.open(name, _FOLDER, dir_fd=top)
        try:
            for inner in _remove_files(opened):
                with suppress(OSError):
                    # Moving it changes it, too: its parent is written in it.
                    os.chmod(inner, 0o700, dir_fd=opened)
                    os.rename(inner, next(names), src_dir_fd=opened, dst_dir_fd=top)
        finally:
            os.close(opened)
        os.rmdir(name, dir_fd=top)
        return True
    return False


def _remove_files(folder: int) -> list[str]:
    """The names of the folders in it are left."""
    with os.scandir(folder) as entries:
        there = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in there:
        if not is_folder:
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
    return [name for name, is_folder in there if is_folder]


def end_processes(folder: Path) -> None:
    """SIGKILL to each process whose TMPDIR is `folder` or lies in it. Linux only: other systems do not show that."""
    if sys.platform != "linux":
        return
    mark = re.compile(b"(?:^|\0)TMPDIR=" + re.escape(os.fsencode(folder)) + b"[/\0]")
    with suppress(OSError):
        for _ in range(_ROUNDS):
            ended = [_end_if_marked(int(name), mark) for name in os.listdir(_PROCESSES) if name.isdecimal()]
            if not any(ended):
                return


def _end_if_marked(pid: int, mark: "re.Pattern[bytes]") -> bool:
    # Gone by now, or of another user: not ours.
    with suppress(OSError):
        if pid == os.getpid() or not _is_marked(pid, mark):
            return False
        # From here on the number cannot become another process's, where the system has such descriptors.
        descriptor = _descriptor_of(pid)
        try:
            if _is_marked(pid, mark):
                if descriptor is None:
                    os.kill(pid, signal.SIGKILL)
                else:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                return True
        finally:
            if descriptor is not None:
                os.close(descriptor)
    return False


def _descriptor_of(pid: int) -> int | None:
    # Python may be built without it, and the kernel may refuse it.
    with suppress(AttributeError, OSError):
        return os.pidfd_open(pid)
    return None


def _is_marked(pid: int, mark: "re.Pattern[bytes]") -> bool:
    with open(f"{_PROCESSES}/{pid}/environ", "rb", buffering=0) as environment:
        return mark.search(environment.read()) is not None


def _remove_abandoned(place: Path) -> None:
    names: list[str] = []
    with suppress(OSError):
        names = [name for name in os.listdir(place) if _ROOT.fullmatch(name)]
    for name in names:
        # Locked: its runner lives.
        with suppress(OSError):
            lock = os.open(place / name, _FOLDER)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_abandoned(name, lock):
                    clear_up(place / name)
            finally:
                os.close(lock)


def _is_abandoned(name: str, root: int) -> bool:
    """Whether an unlocked folder is one of ours, by its owner and its content, and will not be locked any more."""
    found = os.fstat(root)
    if name.startswith(".") and time.time() - found.st_mtime < _LOCKED_WITHIN_SECONDS:
        return False
    with os.scandir(root) as entries:
        is_ours = all(entry.name.isdecimal() and entry.is_dir(follow_symlinks=False) for entry in entries)
    return is_ours and found.st_uid == os.getuid()
