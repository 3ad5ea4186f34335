"""What handlers leave behind: temporary files, and processes that they started. Neither outlives its worker process.

Each worker process has a folder of its own as ``TMPDIR``. Whatever a handler starts inherits that variable, also when
it leaves the process group (``setsid``) or is adopted by another parent, so that the folder's path tells whose it is.
The folders of one runner lie in one that it locks; what a killed runner left is found by its lock being free.
"""

import fcntl
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

_PREFIX = "plugplay-runner-"
_PROCESSES = "/proc"
#: Processes that start others while they are being ended are looked for again, this many times.
_ROUNDS = 5
#: multiprocessing makes such a folder once in a process, and fails when it is gone.
_NEEDED_BY_PYTHON = "pymp-"
#: Two changes within so long may bear the same time: kernels stamp files by their timer.
_TIMESTAMP_NS = 20_000_000


class TemporaryFolders:
    """The folders of one runner's worker processes. :meth:`open` also removes what killed runners left."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self._lock = -1
        self._count = 0

    def open(self) -> None:
        """Without a place for temporary files worker processes have none of their own, and go on."""
        try:
            _remove_abandoned(Path(tempfile.gettempdir()))
            made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
            # The lock also keeps systemd-tmpfiles from removing what is old in there.
            self._lock = os.open(made, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Under its name once it is locked: nobody is to find it free.
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
        """Ends what is still running with a folder of ours, and removes all of them."""
        if self._root is not None:
            clear_up(self._root)
            self._root = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


@contextmanager
def own_temporary_folder() -> Iterator[Path | None]:
    """For commands that call handlers in their own process: what those leave is cleared up at the end."""
    folders = TemporaryFolders()
    folders.open()
    try:
        yield folders.new()
    finally:
        folders.close()


class OwnFolder:
    """The folder that this worker process has as TMPDIR, emptied between calls."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._kept: frozenset[str] = frozenset()
        self._unused_since = -1

    def keep_what_is_there(self) -> None:
        """What was made while the adapter loaded belongs to the process, not to a call."""
        self._kept = frozenset(self._names())

    def left(self) -> list[str]:
        """Names of what calls have left in it. Asked after each call, it looks inside when something has changed."""
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
            return -1 if self._folder is None else os.stat(self._folder).st_mtime_ns
        except OSError:
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
    """Removes a file or a whole folder, as far as that is possible."""
    if path.is_symlink() or not path.is_dir():
        with suppress(OSError):
            path.unlink()
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        # A folder without rights for its owner keeps what is in it.
        _allow(str(path))
        for folder, names, _ in os.walk(path):
            for name in names:
                _allow(os.path.join(folder, name))
        shutil.rmtree(path, ignore_errors=True)


def _allow(folder: str) -> None:
    with suppress(OSError):
        if not os.path.islink(folder):
            os.chmod(folder, 0o700)


def end_processes(folder: Path) -> None:
    """SIGKILL to each process whose TMPDIR is `folder` or lies in it. Linux only: elsewhere nothing tells."""
    if sys.platform != "linux":
        return
    mark = re.compile(b"(?:^|\0)TMPDIR=" + re.escape(os.fsencode(folder)) + b"[/\0]")
    for _ in range(_ROUNDS):
        ended = [_end_if_marked(int(name), mark) for name in os.listdir(_PROCESSES) if name.isdecimal()]
        if not any(ended):
            return


def _end_if_marked(pid: int, mark: "re.Pattern[bytes]") -> bool:
    # Gone by now, or of another user: not ours.
    with suppress(OSError):
        if pid == os.getpid() or not _is_marked(pid, mark):
            return False
        # From here on the number cannot come to mean another process.
        descriptor = os.pidfd_open(pid)
        try:
            if _is_marked(pid, mark):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                return True
        finally:
            os.close(descriptor)
    return False


def _is_marked(pid: int, mark: "re.Pattern[bytes]") -> bool:
    with open(f"{_PROCESSES}/{pid}/environ", "rb", buffering=0) as environment:
        return mark.search(environment.read()) is not None


def _remove_abandoned(place: Path) -> None:
    for root in place.glob(f"{_PREFIX}*"):
        # Locked: its runner lives.
        with suppress(OSError):
            lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_uid == os.getuid():
                    clear_up(root)
            finally:
                os.close(lock)
