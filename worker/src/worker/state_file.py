"""``environment.json``, where other commands find the running environment, and the lock on the data folder."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from worker.errors import AlreadyRunning, NotRunning

_STATE = "environment.json"
_LOCK = "worker.lock"


class ProcessState(BaseModel):
    """One process of a runner. `since`: when it became ready, in seconds since 1970; null if it is not ready."""

    url: str
    pid: int | None = None
    since: float | None = None
    draining: bool = False


class RunnerState(BaseModel):
    """`problem`: why it does not run, or why its newest change is not taken; empty if all is well."""

    processes: list[ProcessState] = []
    problem: str = ""
    #: how far its newest version is: "installing", "checking", "starting"; empty if none is on its way
    coming: str = ""
    #: of its newest virtual environment
    python: Path | None = None


class EnvironmentState(BaseModel):
    """A running environment."""

    pid: int = Field(default_factory=os.getpid)
    gateway: str
    discovery: str
    #: where its runners are
    folder: Path | None = None
    #: the same if it follows changes there, else null
    follows: Path | None = None
    runners: dict[str, RunnerState] = {}


@contextlib.contextmanager
def data_folder_owned(data: Path) -> Iterator[None]:
    """Keeps other workers out of the data folder. The lock ends with this process, however that ends."""
    data.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 20, 0).decode() or "unknown"
            raise AlreadyRunning(
                f"a worker (process {holder}) already uses {data}; stop it or choose another folder with --data"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


class StateFile:
    """The file exists from the first :meth:`write` to :meth:`remove`; readers always see a whole one."""

    def __init__(self, data: Path) -> None:
        self._file = data / _STATE

    def write(self, state: EnvironmentState) -> None:
        fresh = self._file.with_suffix(f".{os.getpid()}")
        fresh.write_text(state.model_dump_json(indent=2) + "\n", encoding="utf-8")
        fresh.replace(self._file)

    def remove(self) -> None:
        self._file.unlink(missing_ok=True)


def read_state(data: Path) -> EnvironmentState:
    """Raises NotRunning if there is no file, or one that a killed worker left."""
    try:
        state = EnvironmentState.model_validate_json((data / _STATE).read_bytes())
    except (OSError, ValidationError):
        state = None
    if state is None or not _lives(state.pid):
        raise NotRunning(f"no environment runs in {data}; start one with: worker up")
    return state


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
